"""How requests reach the native module, and answers come back: waiting, and for asyncio."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any, Callable, Optional, Protocol, Tuple, Union

from . import _sdp
from ._convert import parse, seconds, write

Timeout = Union[None, float, timedelta]

_Callback = Callable[[Optional[str], Optional[BaseException]], None]


def pause(seconds: float) -> None:
    """Waits so long."""
    time.sleep(seconds)


async def async_pause(seconds: float) -> None:
    """Waits so long."""
    await asyncio.sleep(seconds)


class Called(Protocol):
    """What of the native module answers requests."""

    def call(self, op: str, body: str, timeout: Optional[float] = None) -> str: ...


class Begun(Protocol):
    """What of the native module tells a callback of its answers."""

    def begin(self, op: str, body: str, callback: _Callback) -> _sdp.Task: ...


class Transport:
    """Waits for its answers, without the interpreter's lock; Ctrl-C ends the wait."""

    def __init__(self, native: Called) -> None:
        self._native = native

    def call(self, op: str, body: Any = None, *, timeout: Timeout = None) -> Any:
        return parse(self._native.call(op, write(body), seconds(timeout)))


class Lines:
    """What comes one after another."""

    def __init__(self, native: _sdp.Stream) -> None:
        self._native = native

    def next(self, timeout: Timeout = None) -> Any:
        """The next, or None at the end."""
        text = self._native.next(seconds(timeout))
        return None if text is None else parse(text)

    def position(self) -> Optional[int]:
        """The number of what comes next, where it has one."""
        return self._native.position()

    def end(self) -> Any:
        """How it ended, or None before."""
        text = self._native.end()
        return None if text is None else parse(text)

    def cancel(self) -> None:
        self._native.cancel()


class AsyncTransport:
    """Answers awaitables of the running loop. Cancelling one gives its request up."""

    def __init__(self, native: Begun) -> None:
        self._native = native

    async def call(self, op: str, body: Any = None, *, timeout: Timeout = None) -> Any:
        text = write(body)
        answer = await _outcome(lambda told: self._native.begin(op, text, told), timeout)
        return parse(answer or "null")


class AsyncLines:
    """What comes one after another, for asyncio."""

    def __init__(self, native: _sdp.Stream) -> None:
        self._native = native
        # The one read that is under way. Who stops waiting leaves it to the next, so that nothing is lost or overtaken.
        self._read: Optional[asyncio.Future[Optional[str]]] = None
        self._position: Optional[int] = None

    async def next(self, timeout: Timeout = None) -> Any:
        """The next, or None at the end. Loses nothing when it is cancelled."""
        limit = seconds(timeout)
        while True:
            if self._read is None:
                self._position = self._native.position()
                self._read, _ = _begin(self._native.begin_next)
            read = self._read
            await asyncio.wait({read}, timeout=limit)
            if not read.done():
                raise TimeoutError(f"that took longer than {limit} s")
            # Otherwise somebody else waited for it too, and was first.
            if self._read is read:
                self._read = None
                text = read.result()
                return None if text is None else parse(text)

    def position(self) -> Optional[int]:
        """The number of what comes next, where it has one."""
        return self._native.position() if self._read is None else self._position

    def end(self) -> Any:
        """How it ended, or None before."""
        text = self._native.end()
        return None if text is None else parse(text)


def _begin(begin: Callable[[_Callback], _sdp.Task]) -> Tuple[asyncio.Future[Optional[str]], _sdp.Task]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Optional[str]] = loop.create_future()

    def settle(answer: Optional[str], error: Optional[BaseException]) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(answer)

    def told(answer: Optional[str], error: Optional[BaseException]) -> None:
        try:
            loop.call_soon_threadsafe(settle, answer, error)
        except RuntimeError:
            # The loop has been closed: nobody waits any more.
            pass

    return future, begin(told)


async def _outcome(begin: Callable[[_Callback], _sdp.Task], timeout: Timeout) -> Optional[str]:
    future, task = _begin(begin)
    try:
        limit = seconds(timeout)
        if limit is None:
            return await future
        try:
            return await asyncio.wait_for(future, limit)
        except asyncio.TimeoutError:
            raise TimeoutError(f"that took longer than {limit} s") from None
    finally:
        task.cancel()
