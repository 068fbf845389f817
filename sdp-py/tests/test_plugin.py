"""The pytest plugin, against a real server in this process."""

from __future__ import annotations

import re

import pytest
from world import World

from sdp import ServiceSpec
from sdp.pytest_plugin import Spec, sandbox_name


@pytest.fixture
def suite(world: World, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory of tests for the platform of this process, with the template `checkout`."""
    services = [ServiceSpec("eredar", "main"), ServiceSpec("illidan", "main")]
    world.client.create_template("checkout", services=services)
    monkeypatch.setenv("SDP_SERVER", world.platform.url)
    monkeypatch.setenv("SDP_TOKEN", world.client.token or "")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("SDP_GATEWAY", "http://gateway.example/erangel/")
    return pytester


def left(world: World) -> list[str]:
    return [sandbox.name for sandbox in world.client.sandboxes()]


def test_a_marker_says_what_a_sandbox_is_made_of(world: World, suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.sandbox(template="checkout", eredar="feature/x")
        def test_template(sandbox, sdp_headers, sdp_requests, sdp_httpx, sdp_gateway):
            assert {it.repo: it.branch for it in sandbox.services} == {"eredar": "feature/x", "illidan": "main"}
            assert all(it.state == "running" for it in sandbox.deployments)
            assert sdp_headers == {"X-SDP-Sandbox": sandbox.key}
            assert sdp_requests.headers["X-SDP-Sandbox"] == sandbox.key
            assert sdp_httpx.headers["X-SDP-Sandbox"] == sandbox.key
            assert str(sdp_httpx.base_url) == "http://gateway.example/erangel/"
            assert sdp_gateway == "http://gateway.example/erangel"
            assert sandbox.name.startswith("t-test-template-")

        @pytest.mark.sandbox(eredar="main", env={"A": "1"}, routes={"eredar": "sandbox"}, expires_in="2h")
        def test_repos(sandbox):
            assert sandbox.deployments[0].env == {"A": "1"}
            assert sandbox.routes()["eredar"].owner == sandbox.name

        def test_plain(sandbox):
            assert sandbox.services == []
        """
    )
    suite.runpytest_subprocess().assert_outcomes(passed=3)
    assert left(world) == []


def test_a_module_and_a_session_share_a_sandbox(world: World, suite: pytest.Pytester) -> None:
    suite.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def sdp_session_spec():
            return {"template": "checkout"}
        """
    )
    suite.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.sandbox(eredar="feature/x")
        seen = set()

        @pytest.mark.parametrize("again", [1, 2])
        def test_module(module_sandbox, sdp_headers, again):
            seen.add(module_sandbox.name)
            assert len(seen) == 1
            assert sdp_headers == module_sandbox.headers
            assert [it.repo for it in module_sandbox.services] == ["eredar"]

        @pytest.mark.parametrize("again", [1, 2])
        def test_session(session_sandbox, again):
            seen.add(session_sandbox.name)
            assert len(seen) == 2
            assert len(session_sandbox.services) == 2
        """
    )
    suite.runpytest_subprocess().assert_outcomes(passed=4)
    assert left(world) == []


def test_a_failing_test_has_the_logs_and_its_sandbox_goes_or_is_kept(world: World, suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.sandbox(eredar="feature/x")
        def test_it(sandbox):
            sandbox.deploy("illidan", "main").wait()
            assert False

        @pytest.mark.sandbox(eredar="feature/x")
        def test_good(sandbox):
            pass
        """
    )
    done = suite.runpytest_subprocess()
    done.assert_outcomes(failed=1, passed=1)
    done.stdout.re_match_lines([r".*sdp log: t-test-it-.*/eredar feature/x.*", r".*= running"])
    done.stdout.re_match_lines([r".*sdp log: t-test-it-.*/illidan main.*"])
    for service in ["eredar feature/x", "illidan main"]:
        done.stdout.re_match_lines([rf".*sdp output: t-test-it-.*/{service}.*", "starting", r".* listens on \d+"])
    assert left(world) == []
    done = suite.runpytest_subprocess("--sdp-keep", "-n", "2")
    done.assert_outcomes(failed=1, passed=1)
    kept = left(world)
    assert len(kept) == 1
    done.stdout.fnmatch_lines(["*sandboxes kept*", f"{kept[0]} *sdp sandbox delete {kept[0]}*"])


def test_a_deployment_that_fails_is_an_error_with_its_log_and_leaves_nothing(
    world: World, suite: pytest.Pytester
) -> None:
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.sandbox(template="checkout")
        def test_it(sandbox):
            pass
        """
    )
    world.machine.behave("build-fails")
    done = suite.runpytest_subprocess()
    done.assert_outcomes(errors=1)
    done.stdout.re_match_lines([r".*BuildFailed.*did not come up.*"])
    done.stdout.re_match_lines([r".*build  \| building (eredar|illidan).*"])
    done.stdout.no_re_match_line(r".*sdp output: .*")
    assert left(world) == []


def test_workers_have_sandboxes_of_their_own(world: World, suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import os
        import pytest

        @pytest.mark.parametrize("n", range(8))
        @pytest.mark.sandbox(eredar="feature/x")
        def test_it(sandbox, n):
            assert sandbox.name.startswith(os.environ["PYTEST_XDIST_WORKER"])
            assert sandbox.deployments[0].host_port
        """
    )
    suite.runpytest_subprocess("-n", "4").assert_outcomes(passed=8)
    assert left(world) == []


def test_without_a_control_plane_a_test_fails_and_says_why(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SDP_SERVER", raising=False)
    monkeypatch.delenv("SDP_TOKEN", raising=False)
    pytester.makepyfile("def test_it(sandbox): pass")
    done = pytester.runpytest_subprocess()
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*set SDP_SERVER (or --sdp-server) and SDP_TOKEN*"])


def test_names_are_valid_and_unique_whatever_a_test_is_called() -> None:
    node = "tests/test_a.py::TestB::test_" + "Ä_[x/y]-" * 30
    names = {sandbox_name(node, "gw3") for _ in range(100)}
    assert len(names) == 100
    for name in [*names, sandbox_name("", "t")]:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
        assert len(name) <= 63


def test_a_markers_words_are_settings_or_repos() -> None:
    spec = Spec.of({"template": "checkout", "eredar": "x", "branches": {"a.b": "y"}, "timeout": 5})
    assert (spec.template, spec.branches, spec.timeout) == ("checkout", {"eredar": "x", "a.b": "y"}, 5)
