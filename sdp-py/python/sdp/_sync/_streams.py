# Generated from sdp.aio by tools/unasync.py. Do not edit.
"""What is followed: logs and changes, one after another."""

from __future__ import annotations

from typing import Iterator, Optional

from .. import _sdp
from .._convert import read
from .._transport import Lines, Timeout
from ..model import DeploymentState, Event, LiveEvent


class LogFollow(Iterator[Event]):
    """A deployment's log as it is written, each event once and in order, to the deployment's end.

    A connection that breaks is made again, and the log goes on where it was.
    """

    def __init__(self, native: _sdp.Stream) -> None:
        self._lines = Lines(native)

    def __iter__(self) -> LogFollow:
        return self

    def __next__(self) -> Event:
        event = self.next()
        if event is None:
            raise StopIteration
        return event

    def next(self, timeout: Timeout = None) -> Optional[Event]:
        """The next event; None when the deployment's pipeline has ended.

        Args:
            timeout: Seconds, or a timedelta; for ever when None. Nothing is lost when it ends.

        Raises:
            TimeoutError: Nothing came in time.
            SdpError: It could not be gone on.
        """
        data = self._lines.next(timeout)
        return None if data is None else read(Event, data)

    @property
    def state(self) -> Optional[DeploymentState]:
        """The state in which the pipeline ended; None before all was told."""
        end = self._lines.end()
        return None if end is None else DeploymentState(end["state"])


class Changes(Iterator[LiveEvent]):
    """What changes on the platform, as it does. It has no end."""

    def __init__(self, native: _sdp.Stream) -> None:
        self._lines = Lines(native)

    def __iter__(self) -> Changes:
        return self

    def __next__(self) -> LiveEvent:
        return self.next()

    def next(self, timeout: Timeout = None) -> LiveEvent:
        """The next change.

        Args:
            timeout: Seconds, or a timedelta; for ever when None. Nothing is lost when it ends.

        Raises:
            TimeoutError: Nothing came in time.
            SdpError: It could not be gone on.
        """
        return read(LiveEvent, self._lines.next(timeout))

    @property
    def position(self) -> Optional[int]:
        """The number of the event that comes next; pass it to ``client.events`` to go on here."""
        return self._lines.position()
