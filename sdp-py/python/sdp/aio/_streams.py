"""What is followed: logs and changes, one after another."""

from __future__ import annotations

from typing import AsyncIterator, Optional

from .. import _sdp
from .._convert import read
from .._transport import AsyncLines, Timeout
from ..model import DeploymentState, Event, LiveEvent


class LogFollow(AsyncIterator[Event]):
    """A deployment's log as it is written, each event once and in order, to the deployment's end.

    A connection that breaks is made again, and the log goes on where it was.
    """

    def __init__(self, native: _sdp.Stream) -> None:
        self._lines = AsyncLines(native)

    def __aiter__(self) -> LogFollow:
        return self

    async def __anext__(self) -> Event:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def next(self, timeout: Timeout = None) -> Optional[Event]:
        """The next event; None when the deployment's pipeline has ended.

        Args:
            timeout: Seconds, or a timedelta; for ever when None. Nothing is lost when it ends.

        Raises:
            TimeoutError: Nothing came in time.
            SdpError: It could not be gone on.
        """
        data = await self._lines.next(timeout)
        return None if data is None else read(Event, data)

    @property
    def state(self) -> Optional[DeploymentState]:
        """The state in which the pipeline ended; None before all was told."""
        end = self._lines.end()
        return None if end is None else DeploymentState(end["state"])


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
