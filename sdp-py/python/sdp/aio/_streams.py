"""What is followed: logs, what programs print, and changes, one after another."""

from __future__ import annotations

from typing import AsyncIterator, Optional, Type, TypeVar

from .. import _sdp
from .._convert import read
from .._transport import AsyncLines, Timeout
from ..model import DeploymentState, Event, LiveEvent, OutputLine

T = TypeVar("T")


class _Follow(AsyncIterator[T]):
    """What comes one after another to an end."""

    def __init__(self, native: _sdp.Stream, of: Type[T]) -> None:
        self._lines = AsyncLines(native)
        self._of = of

    def __aiter__(self) -> _Follow[T]:
        return self

    async def __anext__(self) -> T:
        found = await self.next()
        if found is None:
            raise StopAsyncIteration
        return found

    async def next(self, timeout: Timeout = None) -> Optional[T]:
        """The next of them; None at the end.

        Args:
            timeout: Seconds, or a timedelta; for ever when None. Nothing is lost when it ends.

        Raises:
            TimeoutError: Nothing came in time.
            SdpError: It could not be gone on.
        """
        data = await self._lines.next(timeout)
        return None if data is None else read(self._of, data)


class LogFollow(_Follow[Event]):
    """A deployment's log as it is written, each event once and in order, to the end of the deployment's pipeline.

    A connection that breaks is made again, and the log goes on where it was.
    """

    def __init__(self, native: _sdp.Stream) -> None:
        super().__init__(native, Event)

    @property
    def state(self) -> Optional[DeploymentState]:
        """The state in which the pipeline ended; None before all was told."""
        end = self._lines.end()
        return None if end is None else DeploymentState(end["state"])


class OutputFollow(_Follow[OutputLine]):
    """What a deployment's program prints, line by line, until it ends or another takes its place.

    Nothing is kept of it on the way: when the connection breaks, it ends with an error. Follow it again then.
    """

    def __init__(self, native: _sdp.Stream) -> None:
        super().__init__(native, OutputLine)


class Changes(AsyncIterator[LiveEvent]):
    """What changes on the platform, as it does. It has no end."""

    def __init__(self, native: _sdp.Stream) -> None:
        self._lines = AsyncLines(native)

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> LiveEvent:
        return await self.next()

    async def next(self, timeout: Timeout = None) -> LiveEvent:
        """The next change.

        Args:
            timeout: Seconds, or a timedelta; for ever when None. Nothing is lost when it ends.

        Raises:
            TimeoutError: Nothing came in time.
            SdpError: It could not be gone on.
        """
        return read(LiveEvent, await self._lines.next(timeout))

    @property
    def position(self) -> Optional[int]:
        """The number of the event that comes next; pass it to ``client.events`` to go on here."""
        return self._lines.position()
