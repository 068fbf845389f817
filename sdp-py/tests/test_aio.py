"""The client for asyncio, against a real server in this process."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from world import World

import sdp
from sdp import DeploymentState, ServiceSpec, errors


def run(world: World, body):  # type: ignore[no-untyped-def]
    async def main() -> None:
        client = await sdp.aio.Client.login(world.platform.url, "ada", "secret")
        async with client:
            await body(client)

    asyncio.run(main())


def test_two_branches_are_deployed_side_by_side(world: World) -> None:
    async def body(client: sdp.aio.Client) -> None:
        async with client.sandbox() as sandbox:
            begun = await asyncio.gather(sandbox.deploy("eredar", "feature/x"), sandbox.deploy("illidan", "main"))
            follow = begun[0].follow()
            lines = [str(event) async for event in follow]
            assert follow.state is DeploymentState.RUNNING
            assert lines
            done = await asyncio.gather(*(deployment.wait() for deployment in begun))
            assert {it.repo: str(it.state) for it in done} == {"eredar": "running", "illidan": "running"}
            table = await sandbox.route("eredar", "sandbox")
            assert table["eredar"].value == done[0].url
            assert {it.repo async for it in sandbox.history()} == {"illidan", "eredar"}
        assert [it async for it in client.sandboxes()] == []

    run(world, body)


def test_a_command_is_run_and_ended_when_it_is_given_up(world: World) -> None:
    async def body(client: sdp.aio.Client) -> None:
        async with client.sandbox() as sandbox:
            deployment = await (await sandbox.deploy("eredar", "main")).wait()
            world.machine.has_program("list", stdout="a\n")
            both = await asyncio.gather(*(deployment.exec(["list"]) for _ in range(2)))
            assert [(it.stdout, it.stderr, it.code) for it in both] == [("a\n", "", 0)] * 2
            world.machine.has_program("hang", code=None)
            hangs = asyncio.ensure_future(deployment.exec(["hang"]))
            while not world.machine.commands():
                await asyncio.sleep(0.01)
            assert world.machine.commands() == [["hang"]]
            hangs.cancel()
            while world.machine.commands():
                await asyncio.sleep(0.01)

    run(world, body)


def test_what_a_program_prints_is_read_and_followed(world: World) -> None:
    async def body(client: sdp.aio.Client) -> None:
        async with client.sandbox() as sandbox:
            deployment = await (await sandbox.deploy("eredar", "main")).wait()
            printed = (await deployment.output()).splitlines()
            assert len(printed) == 2
            assert [line.text async for line in deployment.follow_output()] == printed
            assert [line.text async for line in deployment.follow_output(tail=1)] == printed[1:]
            await deployment.stop()
            await (await sandbox.deploy("eredar", "main", force=True)).wait()
            with pytest.raises(errors.Conflict):
                await (await deployment.refresh()).output()

    run(world, body)


def test_a_log_whose_follower_gives_up_again_and_again_is_followed_all_the_same(world: World) -> None:
    async def body(client: sdp.aio.Client) -> None:
        async with client.sandbox() as sandbox:
            follow = (await sandbox.deploy("eredar", "main")).follow()
            seqs = []
            while True:
                try:
                    event = await follow.next(timeout=0.001)
                except TimeoutError:
                    continue
                if event is None:
                    break
                seqs.append(event.seq)
            assert len(seqs) > 5
            assert seqs == list(range(1, len(seqs) + 1))

    run(world, body)


def test_a_cancelled_block_tears_its_sandbox_down(world: World) -> None:
    world.machine.behave("build-hangs")

    async def body(client: sdp.aio.Client) -> None:
        entered = asyncio.Event()

        async def block() -> None:
            async with client.sandbox() as sandbox:
                deployment = await sandbox.deploy("eredar", "main")
                entered.set()
                await deployment.wait()

        task = asyncio.create_task(block())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [it async for it in client.sandboxes()] == []

    run(world, body)


def test_a_wait_ends_with_its_time_and_loses_nothing(world: World) -> None:
    world.machine.behave("build-hangs")

    async def body(client: sdp.aio.Client) -> None:
        async with client.sandbox() as sandbox:
            deployment = await sandbox.deploy("eredar", "main")
            with pytest.raises(TimeoutError):
                await deployment.wait(timeout=0.1)
            follow, seen = deployment.follow(), []
            while True:
                try:
                    event = await follow.next(timeout=0.3)
                except TimeoutError:
                    break
                assert event is not None
                seen.append(event.seq)
            await deployment.cancel()
            seen += [event.seq async for event in follow]
            assert seen == list(range(1, len(seen) + 1))
            with pytest.raises(errors.Cancelled):
                await deployment.wait()

    run(world, body)


def test_changes_templates_and_errors_are_the_same(world: World) -> None:
    async def body(client: sdp.aio.Client) -> None:
        changes = client.events()
        assert (await changes.next()).type == "position"
        template = await client.create_template("checkout", services=[ServiceSpec("eredar", "main")])
        assert (await changes.__anext__()).name == "checkout"
        async with client.sandbox(template="checkout", deploy=True) as sandbox:
            assert (await sandbox.deployment("eredar")).state is DeploymentState.RUNNING
            with pytest.raises(errors.UnknownBranch):
                await (await sandbox.deploy("eredar", "gone")).wait()
        await template.delete()
        with pytest.raises(errors.NotFound):
            await client.template("checkout")

    run(world, body)


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    for name in [
        "Client",
        "Sandbox",
        "Deployment",
        "Environment",
        "Template",
        "LogFollow",
        "OutputFollow",
        "Changes",
        "DeployedSandbox",
    ]:
        waiting, awaited = getattr(sdp, name), getattr(sdp.aio, name)
        methods = {it for it in dir(waiting) if not it.startswith("_")}
        assert methods == {it for it in dir(awaited) if not it.startswith("_")}
        for method in methods:
            one, other = getattr(waiting, method), getattr(awaited, method)
            if callable(one):
                assert inspect.signature(one).parameters.keys() == inspect.signature(other).parameters.keys()
