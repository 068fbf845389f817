"""Sandboxes for tests. pytest loads it of itself where ``sdp`` is installed.

Fixtures: ``sdp_client``; ``sandbox``, ``module_sandbox`` and ``session_sandbox``; ``sdp_gateway``; ``sdp_requests`` and
``sdp_httpx``, HTTP sessions whose requests the gateway sends to the test's sandbox.

The marker says what the sandbox is made of::

    @pytest.mark.sandbox(template="checkout", eredar="feature/x")
    def test_prices(sandbox, sdp_requests, sdp_gateway):
        assert sdp_requests.get(f"{sdp_gateway}/eredar/").ok

Every sandbox has a name that nobody else has, also with xdist, is deployed before its first test, and deleted after its
last. When a test fails, the report has the logs of its sandbox's deployments and what their programs printed; with
``--sdp-keep`` its sandbox stays.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Dict, Generator, Iterator, List, Mapping, Optional, Set, Union

import pytest

from . import Client, Deployment, Sandbox, errors
from ._sync._sandbox import unique_name

if TYPE_CHECKING:
    import httpx
    import requests

_TAIL = 200
"""How many of the last lines a report has of a log, and of what a program printed."""

_FIXTURES = ("sandbox", "module_sandbox", "session_sandbox")


@dataclass
class _Used:
    """A sandbox that tests use."""

    name: str
    sandbox: Optional[Sandbox] = None
    deployments: Dict[str, Deployment] = field(default_factory=dict)
    failed: bool = False


@dataclass
class Spec:
    """What a sandbox is made of, as the marker says it.

    Attributes:
        template: The template that it begins with.
        branches: The branch of each repo: of the template's, or in addition to them.
        environment: Where it lives.
        routes: Where services go, for every request: ``{"eredar": "sandbox"}``. Requests with its key need none.
        env: Environment variables of what is deployed besides the template.
        expires_in: Its end, should this run be killed.
        timeout: How long a deployment may take, in seconds.
    """

    template: Optional[str] = None
    branches: Dict[str, str] = field(default_factory=dict)
    environment: Optional[str] = None
    routes: Dict[str, Any] = field(default_factory=dict)
    env: Dict[str, str] = field(default_factory=dict)
    expires_in: Union[str, timedelta] = "4h"
    timeout: float = 900.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Spec:
        """Reads the marker's arguments: what is no setting of a sandbox is a repo."""
        spec = cls()
        settings = {name for name in cls.__dataclass_fields__ if name != "branches"}
        for name, value in given.items():
            if name == "branches":
                spec.branches.update(value)
            elif name in settings:
                setattr(spec, name, value)
            else:
                spec.branches[name] = value
        return spec


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sdp", "sandboxes")
    group.addoption("--sdp-server", metavar="URL", help="the control plane; else SDP_SERVER")
    group.addoption("--sdp-gateway", metavar="URL", help="the shared gateway; else SDP_GATEWAY, or it is looked up")
    group.addoption("--sdp-keep", action="store_true", help="keep the sandboxes of failed tests")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "sandbox(template=None, *, branches={}, environment=None, routes={}, env={}, expires_in='4h', timeout=900, "
        "**branches): what the test's sandbox is made of",
    )
    config.stash[_USED] = []
    config.stash[_UNMADE] = []


_USED = pytest.StashKey[List[_Used]]()
"""The sandboxes that are there."""

_UNMADE = pytest.StashKey[List[_Used]]()
"""Those that did not come up since the last report."""


@pytest.fixture(scope="session")
def sdp_client(pytestconfig: pytest.Config) -> Client:
    """A client of the control plane, signed in with the token in SDP_TOKEN."""
    url = pytestconfig.getoption("--sdp-server") or os.environ.get("SDP_SERVER")
    if not url or not os.environ.get("SDP_TOKEN"):
        pytest.fail("set SDP_SERVER (or --sdp-server) and SDP_TOKEN: tests with sandboxes need a control plane", False)
    return Client(url)


@pytest.fixture(scope="session")
def sdp_gateway(pytestconfig: pytest.Config, sdp_client: Client) -> str:
    """Where the shared gateway answers, without a slash at the end."""
    url: Optional[str] = pytestconfig.getoption("--sdp-gateway") or os.environ.get("SDP_GATEWAY")
    return url.rstrip("/") if url else sdp_client.gateway()


@pytest.fixture
def sandbox(request: pytest.FixtureRequest, sdp_client: Client) -> Iterator[Sandbox]:
    """A sandbox of this test's own, as the marker ``sandbox`` says."""
    with _made(request, sdp_client, _marked(request)) as made:
        yield made


@pytest.fixture(scope="module")
def module_sandbox(request: pytest.FixtureRequest, sdp_client: Client) -> Iterator[Sandbox]:
    """A sandbox that the module's tests share, as the module's marker says: ``pytestmark = pytest.mark.sandbox(…)``."""
    with _made(request, sdp_client, _marked(request)) as made:
        yield made


@pytest.fixture(scope="session")
def sdp_session_spec() -> Mapping[str, Any]:
    """What ``session_sandbox`` is made of, in the marker's words. Override it in ``conftest.py``."""
    return {}


@pytest.fixture(scope="session")
def session_sandbox(
    request: pytest.FixtureRequest, sdp_client: Client, sdp_session_spec: Mapping[str, Any]
) -> Iterator[Sandbox]:
    """A sandbox that all tests of this process share, as the fixture ``sdp_session_spec`` says."""
    with _made(request, sdp_client, Spec.of(sdp_session_spec)) as made:
        yield made


@pytest.fixture
def sdp_headers(request: pytest.FixtureRequest) -> Dict[str, str]:
    """The header that sends a request to the test's sandbox: the one it asks for, the narrowest first."""
    asked = [name for name in _FIXTURES if name in request.fixturenames]
    found: Sandbox = request.getfixturevalue(asked[0] if asked else "sandbox")
    return found.headers


@pytest.fixture
def sdp_requests(sdp_headers: Dict[str, str]) -> Iterator[requests.Session]:
    """A ``requests.Session`` whose requests are served by the test's sandbox."""
    module = pytest.importorskip("requests", reason="sdp_requests needs requests: pip install requests")
    with module.Session() as session:
        session.headers.update(sdp_headers)
        yield session


@pytest.fixture
def sdp_httpx(sdp_headers: Dict[str, str], sdp_gateway: str) -> Iterator[httpx.Client]:
    """An ``httpx.Client`` whose requests are served by the test's sandbox. Paths begin at the gateway."""
    module = pytest.importorskip("httpx", reason="sdp_httpx needs httpx: pip install httpx")
    with module.Client(headers=sdp_headers, base_url=sdp_gateway) as client:
        yield client


def _marked(request: pytest.FixtureRequest) -> Spec:
    node: Any = request.node
    marker: Optional[pytest.Mark] = node.get_closest_marker("sandbox")
    if marker is None:
        return Spec()
    given = dict(marker.kwargs)
    if marker.args:
        given["template"] = marker.args[0]
    return Spec.of(given)


def sandbox_name(node: str, worker: str) -> str:
    """A sandbox's name that nobody has, and that says what it is for."""
    words = re.sub(r"[^a-z0-9]+", "-", node.rpartition("::")[2].lower() or node.lower()).strip("-")
    return unique_name(f"{worker}-{words[:40].strip('-') or 'tests'}")


@contextmanager
def _made(request: pytest.FixtureRequest, client: Client, spec: Spec) -> Generator[Sandbox, None, None]:
    config = request.config
    node: Any = request.node
    used = _Used(sandbox_name(node.nodeid or "session", os.environ.get("PYTEST_XDIST_WORKER", "t")))
    config.stash[_USED].append(used)
    try:
        try:
            made = _deployed(client, spec, used)
        except BaseException:
            # The report is made when this sandbox is gone already.
            used.failed = True
            config.stash[_UNMADE].append(used)
            raise
        yield made
    finally:
        config.stash[_USED].remove(used)
        if not (used.failed and config.getoption("--sdp-keep")):
            _delete(client, used.name)


def _delete(client: Client, name: str) -> None:
    """Deletes a sandbox by its name alone: it may have been made without an answer."""
    try:
        client.get_sandbox(name).delete()
    except errors.NotFound:
        pass


def _deployed(client: Client, spec: Spec, used: _Used) -> Sandbox:
    of_template = {it.repo for it in client.template(spec.template).services} if spec.template else set()
    made = client.create_sandbox(
        used.name,
        template=spec.template,
        branches={repo: branch for repo, branch in spec.branches.items() if repo in of_template},
        environment=spec.environment,
        expires_in=spec.expires_in,
    )
    used.sandbox = made
    begun = made.deploy_all() if of_template else None
    for deployment in begun.deployments if begun is not None else []:
        used.deployments[deployment.repo] = deployment
    for repo, branch in spec.branches.items():
        if repo not in of_template:
            used.deployments[repo] = made.deploy(repo, branch, env=spec.env)
    if begun is not None:
        begun.wait(spec.timeout)
    for deployment in used.deployments.values():
        deployment.wait(spec.timeout)
    if spec.routes:
        made.set_routes(spec.routes)
    return made.ready(spec.timeout)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        keep = item.config.getoption("--sdp-keep")
        for used in _used_by(item):
            used.failed = True
            report.sections.extend(_sections(used))
            if keep:
                report.sections.append(
                    ("sdp", f"sandbox {used.name} is kept; when done: sdp sandbox delete {used.name}")
                )
                report.user_properties.append(("sdp-kept", used.name))
    item.config.stash[_UNMADE].clear()
    return report


def _used_by(item: pytest.Item) -> List[_Used]:
    """The sandboxes that a test can see. Those of a test's own are gone when the next begins."""
    names = set(getattr(item, "fixturenames", ()))
    used = item.config.stash[_USED] + item.config.stash[_UNMADE]
    return used if names & {*_FIXTURES, "sdp_headers"} else []


def _sections(used: _Used) -> Iterator[tuple[str, str]]:
    deployments = dict(used.deployments)
    if used.sandbox is not None:
        try:
            # Also those that the test deployed itself.
            for deployment in used.sandbox.history():
                deployments.setdefault(deployment.repo, deployment)
        except errors.SdpError:
            pass
    for deployment in deployments.values():
        of = f"{used.name}/{deployment.repo} {deployment.branch} ({deployment.id})"
        try:
            text = deployment.log(tail=_TAIL)
        except errors.SdpError as error:
            text = f"the log cannot be read: {error}"
        yield f"sdp log: {of}", text
        try:
            text = deployment.output(tail=_TAIL)
        except errors.Conflict:
            # It has no program: its log says why.
            continue
        except errors.SdpError as error:
            text = f"the output cannot be read: {error}"
        yield f"sdp output: {of}", text


def pytest_terminal_summary(terminalreporter: Any) -> None:
    kept: Set[str] = set()
    for reports in terminalreporter.stats.values():
        for report in reports:
            kept.update(value for name, value in getattr(report, "user_properties", ()) if name == "sdp-kept")
    if kept:
        terminalreporter.section("sandboxes kept")
        for name in sorted(kept):
            terminalreporter.line(f"{name}   (sdp sandbox delete {name})")
