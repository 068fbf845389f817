"""What a call of the package costs more than its HTTP round trip.

Both ask the same server, in a process of its own or the one that SDP_SERVER and SDP_TOKEN name, for the same answer
over one kept connection: the package, and a raw socket that writes a fixed request and reads the answer to its end.
They take turns, so that a busy machine slows both.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import time
from multiprocessing.connection import Connection
from typing import Callable

import sdp
from sdp.testing import MemoryDeployer, MemoryRepos

CALLS = int(os.environ.get("CALLS", "3000"))
ROUNDS = 10
TARGET_US = 100


def serve(said: Connection) -> None:
    """A server with an agent on doubles, until it is told to end."""
    with sdp.local.Platform() as platform:
        platform.start_agent("micro-1", MemoryRepos(eredar={"main": {}}), deployer=MemoryDeployer())
        client = platform.login("ada", "secret")
        said.send((platform.url, client.token))
        said.recv()


class Raw:
    """The round trip and nothing else."""

    def __init__(self, url: str, token: str, path: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {token}\r\n"
        self._request = f"{head}accept: application/json\r\n\r\n".encode()

    def call(self) -> bytes:
        self._socket.sendall(self._request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        while len(body) < length:
            body += self._socket.recv(65536)
        return body


def timed(call: Callable[[], object], calls: int) -> list[float]:
    """How long each call took, in microseconds."""
    took = []
    for _ in range(calls):
        begun = time.perf_counter_ns()
        call()
        took.append((time.perf_counter_ns() - begun) / 1000)
    return took


def measure(url: str, token: str) -> None:
    """Prints the medians of both, in turns."""
    client = sdp.Client(url, token=token)
    with client.sandbox("overhead") as sandbox:
        for name, path, call in [
            ("who is signed in", "/api/me", client.me),
            ("a sandbox, whole", "/api/sandboxes/overhead", sandbox.refresh),
        ]:
            raw = Raw(url, token, path)
            timed(raw.call, 200)
            timed(call, 200)
            raws: list[float] = []
            calls: list[float] = []
            for _ in range(ROUNDS):
                raws += timed(raw.call, CALLS // ROUNDS)
                calls += timed(call, CALLS // ROUNDS)
            for which, place in [("median", 4), ("quickest tenth", 0)]:
                one, other = (statistics.quantiles(took, n=10)[place] for took in (raws, calls))
                print(f"{name:18} {which:15} raw {one:7.1f} µs   sdp {other:7.1f} µs   overhead {other - one:6.1f} µs")
    print(f"target: at most {TARGET_US} µs; {CALLS} calls each, in turns; others disturb the quickest tenth least")


def main() -> None:
    if "SDP_SERVER" in os.environ:
        measure(os.environ["SDP_SERVER"], os.environ["SDP_TOKEN"])
        return
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    server.start()
    try:
        measure(*ours.recv())
    finally:
        ours.send(None)
        server.join(30)


if __name__ == "__main__":
    main()
