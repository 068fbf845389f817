"""A wire between a client and its server, to be cut."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import List, Optional, Tuple, Type


class Wire:
    """Carries connections to a server on this machine."""

    def __init__(self, server: str) -> None:
        host, _, port = server.removeprefix("http://").partition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._carried: List[Tuple[socket.socket, socket.socket]] = []
        self._left = threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    @property
    def carried(self) -> int:
        """How many connections there were."""
        return len(self._carried)

    def cut(self) -> None:
        """Ends every connection, for the client as if the server had closed it."""
        for pair in self._carried:
            _end(*pair)

    def wait_left(self) -> bool:
        """Waits until the client has closed one more connection."""
        return self._left.acquire(timeout=60)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._server)
            self._carried.append((near, far))
            for one, other in [(near, far), (far, near)]:
                threading.Thread(target=self._carry, args=(one, other, one is near), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, from_client: bool) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        if from_client:
            self._left.release()
        _end(one, other)


def _end(*sockets: socket.socket) -> None:
    for it in sockets:
        try:
            it.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
