"""The pipeline in this process, on doubles and on real parts: git over HTTP and processes."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.request
from pathlib import Path

import pytest

import sdp
from sdp import errors
from sdp.local import Pipeline
from sdp.testing import GitHost, MemoryDeployer, MemoryRepos, MemoryRoutes

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"branch": "%s"}')
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""

# Workers run side by side.
FIRST = 31000 + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = (FIRST, FIRST + 99)


def answer(url: str | None) -> str:
    assert url is not None
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(json.load(response)["branch"])


def is_back(url: str | None) -> bool:
    """Whether it answers again soon: a restart does not wait for that."""
    for _ in range(500):
        try:
            return answer(url) != ""
        except OSError:
            time.sleep(0.02)
    return False


@pytest.fixture
def host() -> GitHost:
    host = GitHost({"ada": "secret"})
    host.push("eredar", "main", {"serve.py": SERVER % "main"})
    host.push("eredar", "feature/x", {"serve.py": SERVER % "feature/x"}, onto="main")
    return host


def repo(host: GitHost) -> dict[str, object]:
    return {
        "name": "eredar",
        "remote": host.url("eredar"),
        "recipe": "command",
        "image": "none:1",
        "build": ["sh", "-c", "echo building"],
        "run": ["python3", "serve.py"],
        "health": {"http": "/", "timeout": "30s"},
    }


def test_a_branch_is_deployed_with_no_server_at_all(host: GitHost, tmp_path: Path) -> None:
    ada = ("ada", "secret")
    with Pipeline([repo(host)], directory=tmp_path, ports=PORTS) as pipeline:
        assert [it.name for it in pipeline.branches("eredar", credentials=ada)] == ["feature/x", "main"]
        lines: list[str] = []
        main = pipeline.deploy("eredar", "main", credentials=ada, on_event=lambda event: lines.append(str(event)))
        assert answer(main.url) == "main"
        assert any(line.endswith("| building") for line in lines)
        feature = pipeline.deploy("eredar", "feature/x", sandbox="pay", credentials=ada)
        assert (answer(feature.url), answer(main.url)) == ("feature/x", "main")
        assert pipeline.deploy("eredar", "feature/x", sandbox="pay", credentials=ada).kept
        assert {it.name for it in pipeline.instances()} == {"sdp-eredar", "sdp-pay-eredar"}
        pipeline.stop("eredar")
        pipeline.restart("eredar")
        assert is_back(main.url)
        with pytest.raises(errors.UnknownBranch):
            pipeline.deploy("eredar", "gone", credentials=ada)
        with pytest.raises(errors.InvalidCredentials):
            pipeline.deploy("eredar", "main", credentials=("ada", "wrong"))
        assert answer(main.url) == "main"
    with pytest.raises(OSError, match="refused"):
        answer(main.url)


def test_what_a_callback_raises_undoes_the_deployment() -> None:
    machine = MemoryDeployer()
    with Pipeline(MemoryRepos(eredar={"main": {}}), deployer=machine) as pipeline:

        def on_event(event: sdp.Event) -> None:
            if event.type == "stage" and event.stage == "health":
                raise KeyboardInterrupt

        machine.behave("never-healthy")
        with pytest.raises(KeyboardInterrupt):
            pipeline.deploy("eredar", "main", on_event=on_event)
        assert machine.answering() == []
        machine.behave("works")
        assert pipeline.deploy("eredar", "main").state == "running"


def test_a_run_is_iterated_cancelled_and_has_a_result() -> None:
    machine = MemoryDeployer()
    machine.behave("build-hangs")
    with Pipeline(MemoryRepos(eredar={"main": {}}), deployer=machine) as pipeline:
        run = pipeline.start("eredar", "main")
        assert next(run).state == "queued"
        run.cancel()
        with pytest.raises(errors.Cancelled):
            run.result()
        machine.behave("build-fails")
        with pytest.raises(errors.BuildFailed) as caught:
            pipeline.deploy("eredar", "main")
        assert caught.value.stage == "build"


def test_with_asyncio_a_deployment_is_waited_for_in_a_thread() -> None:
    machine = MemoryDeployer()

    async def deploy(pipeline: Pipeline) -> None:
        machine.behave("build-hangs")
        run = pipeline.start("eredar", "main")
        result = asyncio.create_task(asyncio.to_thread(run.result))
        while machine.builds == 0 and not result.done():
            await asyncio.sleep(0.01)
        run.cancel()
        with pytest.raises(errors.Cancelled):
            await result
        machine.behave("works")
        done = await asyncio.to_thread(pipeline.deploy, "eredar", "main")
        assert done.state == "running"

    with Pipeline(MemoryRepos(eredar={"main": {}}), deployer=machine) as pipeline:
        asyncio.run(deploy(pipeline))


def test_a_gateway_in_memory_is_routed() -> None:
    routes = MemoryRoutes("main", eredar="http://eredar.stable.example")
    repos = MemoryRepos(gateway={"main": {}})
    gateway = {"repo": "gateway", "config": "config.php"}
    with Pipeline(repos, deployer=MemoryDeployer(), gateway=gateway, routes=routes) as pipeline:
        assert pipeline.routes()["eredar"].origin == "ocp"
        assert pipeline.route("eredar", "http://127.0.0.1:9")["eredar"].owner == "local"
        with pytest.raises(errors.RouteClaimed):
            pipeline.route("eredar", "http://127.0.0.1:8", owner="other")
        routes.fail()
        with pytest.raises(errors.GatewayReloadFailed):
            pipeline.route("eredar", None)
        routes.fail(False)
        assert pipeline.route("eredar", None)["eredar"].origin == "ocp"
        assert routes.reloads >= 2


def test_a_platform_on_real_git_and_processes_deploys(host: GitHost) -> None:
    with sdp.local.Platform() as platform:
        platform.start_agent("micro-1", [repo(host)], ports=PORTS)
        with pytest.raises(errors.InvalidCredentials):
            platform.login("ada", "wrong")
        client = platform.login("ada", "secret")
        with client.sandbox() as sandbox:
            deployment = sandbox.deploy("eredar", "feature/x").wait()
            assert answer(deployment.url) == "feature/x"
        with pytest.raises(OSError, match="refused"):
            answer(deployment.url)
        platform.stop_agent("micro-1")
        with pytest.raises(errors.AgentAway):
            client.branches("eredar")


def test_configurations_that_cannot_work_are_refused() -> None:
    with pytest.raises(errors.SdpError, match="remote"):
        Pipeline([{"name": "eredar", "remote": "nonsense", "recipe": "go"}])
    with pytest.raises(errors.InvalidInput) as caught:
        Pipeline([{"name": "eredar", "remote": "http://a/b.git", "recipe": "basic"}])
    assert "recipe" in (caught.value.field or "")
    with pytest.raises(errors.InvalidInput):
        MemoryRepos(**{"no spaces": {"main": {}}})
    with pytest.raises(errors.InvalidSettings, match="no behaviour"):
        MemoryDeployer().behave("sings")
