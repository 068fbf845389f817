"""Threads, signals and forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from wire import Wire
from world import World

import sdp
from sdp import errors


def test_other_threads_go_on_while_one_waits(world: World) -> None:
    world.machine.behave("build-hangs")
    with world.client.sandbox() as sandbox:
        deployment = sandbox.deploy("eredar", "main")
        waiter = threading.Thread(target=lambda: deployment.wait(check=False))
        waiter.start()
        # If the wait held the lock, nothing of this would happen.
        with ThreadPoolExecutor(8) as pool:
            names = list(pool.map(lambda _: world.client.me().user, range(64)))
        assert names == ["ada"] * 64
        assert waiter.is_alive()
        world.client.deployment(deployment.id).cancel()
        waiter.join(60)
        assert not waiter.is_alive()


def test_a_connection_that_was_closed_between_two_calls_is_not_used_again(world: World) -> None:
    with Wire(world.platform.url) as wire:
        client = sdp.Client(wire.url, token=world.client.token, retries=0)
        for nth in range(1, 30):
            assert client.me().user == "ada"
            assert client.me().user == "ada"
            assert wire.carried == nth
            wire.cut()


def test_a_client_that_is_gone_has_no_connections(world: World) -> None:
    with Wire(world.platform.url) as wire:
        client = sdp.Client(wire.url, token=world.client.token)
        assert client.me().user == "ada"
        assert client.with_token(client.token).me().user == "ada"
        assert wire.wait_left()
        assert client.me().user == "ada"
        assert wire.carried == 2
        del client
        assert wire.wait_left()


def test_many_threads_with_one_client_have_their_own_answers(world: World) -> None:
    client = world.client
    with client.sandbox() as sandbox, ThreadPoolExecutor(8) as pool:
        asked = [sandbox.name, "gone"] * 100

        def name(of: str) -> str:
            try:
                return client.get_sandbox(of).name
            except errors.NotFound:
                return "gone"

        assert list(pool.map(name, asked)) == asked


INTERRUPTED = """
    import sdp
    client = sdp.Client()
    try:
        with client.sandbox("interrupted") as sandbox:
            deployment = sandbox.deploy("eredar", "main")
            print("waiting", flush=True)
            {wait}
    except KeyboardInterrupt:
        print("interrupted", [it.name for it in client.sandboxes()], flush=True)
"""

INTERRUPTED_LOOP = """
    import asyncio, sdp
    async def main():
        client = sdp.aio.Client()
        async with client.sandbox("interrupted") as sandbox:
            deployment = await sandbox.deploy("eredar", "main")
            print("waiting", flush=True)
            await deployment.wait()
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted", [it.name for it in sdp.Client().sandboxes()], flush=True)
"""


@pytest.mark.parametrize(
    "script",
    [
        INTERRUPTED.format(wait="deployment.wait()"),
        INTERRUPTED.format(wait="list(deployment.follow())"),
        INTERRUPTED_LOOP,
    ],
    ids=["wait", "follow", "asyncio"],
)
def test_ctrl_c_ends_a_wait_and_tears_the_sandbox_down(world: World, script: str) -> None:
    world.machine.behave("build-hangs")
    environment = {**os.environ, "SDP_SERVER": world.platform.url, "SDP_TOKEN": world.client.token or ""}
    # Where these tests run in the background of a shell, SIGINT is ignored, and children inherit that.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program = [sys.executable, "-c", heeding + textwrap.dedent(script)]
    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "interrupted []\n"
        assert child.wait(60) == 0


def in_child(body) -> str:  # type: ignore[no-untyped-def]
    """What a forked child says."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(body())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    return text


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(world: World) -> None:
    client = world.client
    assert client.me().user == "ada"
    assert in_child(lambda: client.me().user) == "ada"
    assert in_child(lambda: [in_child(lambda: client.me().user), client.me().user]) == "['ada', 'ada']"
    assert client.me().user == "ada"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_what_cannot_be_used_after_a_fork_says_so(world: World) -> None:
    world.machine.behave("build-hangs")
    with world.client.sandbox() as sandbox:
        follow = sandbox.deploy("eredar", "main").follow()
        follow.next(timeout=60)
        assert in_child(follow.next).startswith("Broken: what is followed here belongs to the process")
        assert in_child(lambda: world.platform.start_agent("micro-9", world.repos)).startswith("Broken: this platform")
        assert in_child(lambda: world.platform.close()) == "None"
        assert follow.next(timeout=60) is not None


def test_the_interpreter_ends_while_answers_are_told(world: World) -> None:
    environment = {**os.environ, "SDP_SERVER": world.platform.url, "SDP_TOKEN": world.client.token or ""}
    script = """
import asyncio, sdp
async def main():
    client = sdp.aio.Client()
    await asyncio.gather(*(client.health() for _ in range(8)))
    changes = client.events()
    await changes.next()
    for _ in range(8):
        asyncio.ensure_future(changes.next())
    await client.me()
asyncio.run(main())
"""
    for _ in range(10):
        subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_errors_keep_their_class_in_other_threads(client: sdp.Client) -> None:
    with ThreadPoolExecutor(2) as pool:
        future = pool.submit(client.deployment, "0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55")
        with pytest.raises(errors.NotFound):
            future.result()
