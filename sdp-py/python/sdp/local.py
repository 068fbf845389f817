"""The platform in this process: the pipeline alone, or a whole server with its agents.

:class:`Pipeline` deploys without any server: git, a deployer (Docker, or plain processes) and, if wanted, a gateway.
:class:`Platform` starts a real control plane and real agents in this process, for a test. Both take the doubles of
:mod:`sdp.testing` in place of git, Docker and the gateway.

Both wait, and have no form for asyncio. There, wait in a thread, which lets the loop go on; :class:`sdp.aio.Client` is
a client of a platform like of any server::

    done = await asyncio.to_thread(pipeline.deploy, "eredar", "feature/greeting")
    async with await sdp.aio.Client.login(platform.url, "ada", "anything") as client: ...

Who stops awaiting a thread does not stop the thread: to cancel a deployment, keep the :class:`Run` of
:meth:`Pipeline.start`, and :meth:`Run.cancel` it.

Repos are configured in the words of an agent's ``[[repo]]``: ``name``, ``remote``, ``path``, ``recipe`` (``"go"``,
``"php"``, ``"command"``), ``image``, ``container_port``, ``health`` and so on.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Type, Union

from . import _sdp, errors
from ._convert import read, write
from ._html import Listing, Shown
from ._sync import Client, Credentials
from ._sync._deployment import credentials_body
from ._transport import Lines, Timeout, Transport
from .model import Branch, DeploymentState, Event, Failure, Instance, RouteTable
from .testing import MemoryDeployer, MemoryRepos, MemoryRoutes

__all__ = ["Finished", "Pipeline", "Platform", "Run"]

Ports = Tuple[int, int]
"""The first and the last of a range of host ports."""


@dataclass
class Finished(Shown):
    """How a deployment in this process ended."""

    state: DeploymentState
    failure: Optional[Failure] = None
    instance: Optional[Instance] = None
    kept: bool = False

    @property
    def url(self) -> Optional[str]:
        """Where it answers."""
        return self.instance.url if self.instance is not None else None


class Run(Iterator[Event]):
    """A deployment under way in this process: iterate over its events, then take its :meth:`result`.

    One that is given up is cancelled, and what served before serves again.
    """

    def __init__(self, native: _sdp.Stream) -> None:
        self._lines = Lines(native)

    def __iter__(self) -> Run:
        return self

    def __next__(self) -> Event:
        data = self._lines.next()
        if data is None:
            raise StopIteration
        return read(Event, data)

    def cancel(self) -> None:
        """Cancels it; it goes on to its end then."""
        self._lines.cancel()

    def result(self) -> Finished:
        """Waits for its end.

        Raises:
            SdpError: It failed, of the class of the failure's code; or Cancelled.
        """
        for _ in self:
            pass
        finished = read(Finished, self._lines.end())
        failure = finished.failure
        if failure is not None:
            kind = errors.BY_CODE.get(failure.code, errors.SdpError)
            raise kind(failure.reason, code=failure.code, stage=failure.stage)
        if finished.state is DeploymentState.CANCELLED:
            raise errors.Cancelled("the deployment was cancelled")
        return finished


def _agent_config(
    name: str,
    directory: Path,
    repos: Iterable[Mapping[str, Any]],
    deployer: str,
    ports: Ports,
    gateway: Optional[Mapping[str, Any]],
    settings: Optional[Mapping[str, Any]],
) -> Dict[str, Any]:
    config: Dict[str, Any] = {
        "name": name,
        "data_dir": str(directory / "data"),
        "advertise": "127.0.0.1",
        "deployer": {"kind": deployer, "port_range": f"{ports[0]}-{ports[1]}", **(settings or {})},
        "repo": [{"path": str(directory / "repos" / str(repo.get("name", ""))), **repo} for repo in repos],
    }
    if gateway is not None:
        config["gateway"] = dict(gateway)
    return config


class _Directory:
    """A directory of the caller's, or one for as long as it is used."""

    def __init__(self, directory: Union[str, os.PathLike[str], None]) -> None:
        made = tempfile.mkdtemp(prefix="sdp-") if directory is None else None
        self.path = Path(made if made is not None else os.fspath(directory or "")).absolute()
        self._remove = weakref.finalize(self, _remove, made, os.getpid())

    def close(self) -> None:
        self._remove()


def _remove(path: Optional[str], owner: int) -> None:
    # A forked child leaves its parent's alone.
    if path is not None and owner == os.getpid():
        shutil.rmtree(path, ignore_errors=True)


class Pipeline:
    """The deployment pipeline in this process. As a context manager it removes what it deployed at its end.

    Args:
        repos: What can be deployed: mappings in the words of an agent's ``[[repo]]``; or the double.
        directory: Where checkouts, builds and the deployer's records are; a temporary one when None.
        deployer: ``"process"``, ``"docker"`` or ``"swarm"``; or the double.
        ports: The host ports to pick from.
        gateway: The gateway, in the words of an agent's ``[gateway]``; with ``routes`` it is only named.
        routes: The double of the gateway's routes.
        settings: More of an agent's ``[deployer]``.

    Raises:
        InvalidSettings: The repos, the deployer or the gateway cannot be used.
    """

    def __init__(
        self,
        repos: Union[Iterable[Mapping[str, Any]], MemoryRepos] = (),
        *,
        directory: Union[str, os.PathLike[str], None] = None,
        deployer: Union[str, MemoryDeployer] = "process",
        ports: Ports = (20000, 29999),
        gateway: Optional[Mapping[str, Any]] = None,
        routes: Optional[MemoryRoutes] = None,
        settings: Optional[Mapping[str, Any]] = None,
    ) -> None:
        self._directory = _Directory(directory)
        source, declared = _source(repos)
        kind = deployer if isinstance(deployer, str) else "process"
        path = self._directory.path
        config = _agent_config("local", path, declared, kind, ports, gateway, settings)
        machine = deployer._native if isinstance(deployer, MemoryDeployer) else None
        table = routes._native if routes is not None else None
        self._native = _sdp.Pipeline(write(config), source, machine, table)
        self._transport = Transport(self._native)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def start(
        self,
        repo: str,
        branch: str,
        *,
        sandbox: Optional[str] = None,
        commit: Optional[str] = None,
        port: Optional[int] = None,
        env: Optional[Mapping[str, str]] = None,
        force: bool = False,
        credentials: Optional[Credentials] = None,
    ) -> Run:
        """Begins a deployment, whose events come one after another.

        Args:
            repo: The repo.
            branch: The branch.
            sandbox: The sandbox; none is a quick deploy.
            commit: The exact commit; the branch's tip when None.
            port: The host port; one is kept or picked when None.
            env: Environment variables, over those of the repo.
            force: Whether what runs just so already is replaced too.
            credentials: Git user and password.
        """
        key = {"repo": repo, "sandbox": sandbox}
        request = {
            "key": key,
            "branch": branch,
            "commit": commit,
            "host_port": port,
            "env": env or {},
            "force": force,
        }
        body = {"request": request, "credentials": credentials_body(credentials)}
        return Run(self._native.deploy(write(body)))

    def deploy(
        self,
        repo: str,
        branch: str,
        *,
        on_event: Optional[Callable[[Event], object]] = None,
        sandbox: Optional[str] = None,
        commit: Optional[str] = None,
        port: Optional[int] = None,
        env: Optional[Mapping[str, str]] = None,
        force: bool = False,
        credentials: Optional[Credentials] = None,
    ) -> Finished:
        """Deploys a branch, and waits until it runs. The arguments are those of :meth:`start`, and:

        Args:
            on_event: Is called with each event, on this thread. What it raises, and Ctrl-C, cancels the deployment,
                which is undone before the exception goes on.

        Raises:
            SdpError: It failed, of the class of the failure's code (BuildFailed, Unhealthy, …).
        """
        run = self.start(
            repo,
            branch,
            sandbox=sandbox,
            commit=commit,
            port=port,
            env=env,
            force=force,
            credentials=credentials,
        )
        try:
            for event in run:
                if on_event is not None:
                    on_event(event)
        except BaseException:
            run.cancel()
            for _ in run:
                pass
            raise
        return run.result()

    def branches(self, repo: str, *, credentials: Optional[Credentials] = None) -> Listing[Branch]:
        """A repo's branches as the remote has them now.

        Raises:
            UnknownRepo: It is none of these.
            InvalidCredentials: The git host refuses.
        """
        asked = {"repo": repo, "credentials": credentials_body(credentials)}
        return Listing(read(Branch, it) for it in self._transport.call("branches", asked))

    def instances(self) -> Listing[Instance]:
        """What runs, or ran and is kept."""
        return Listing(read(Instance, it) for it in self._transport.call("instances"))

    def stop(self, repo: str, *, sandbox: Optional[str] = None) -> None:
        """Stops what runs, and keeps it.

        Raises:
            NotFound: Nothing of it is there.
        """
        self._transport.call("stop", {"repo": repo, "sandbox": sandbox})

    def restart(self, repo: str, *, sandbox: Optional[str] = None) -> None:
        """Starts it again.

        Raises:
            NotFound: Nothing of it is there.
        """
        self._transport.call("restart", {"repo": repo, "sandbox": sandbox})

    def remove(self, repo: str, *, sandbox: Optional[str] = None) -> None:
        """Removes what runs, and a sandbox's checkout."""
        self._transport.call("remove", {"repo": repo, "sandbox": sandbox})

    def routes(self, *, sandbox: Optional[str] = None) -> RouteTable:
        """The gateway's live table; that of a sandbox's own gateway if one is named.

        Raises:
            NotFound: There is no gateway, or it is not deployed.
        """
        return read(RouteTable, self._transport.call("routes", {"sandbox": sandbox}))

    def route(self, service: str, url: Optional[str], *, owner: str = "local", takeover: bool = False) -> RouteTable:
        """Sends a service to a URL, or back to the gateway's own default when it is None.

        Args:
            service: The service.
            url: Where to.
            owner: The sandbox in whose name it is held.
            takeover: Whether to take it from who has it.

        Raises:
            RouteClaimed: Another owner has it.
            UnknownService: The gateway has no such service.
        """
        override = None if url is None else {"url": url, "kind": "custom", "owner": owner}
        changes = {"services": {service: override}, "by": owner, "takeover": takeover}
        # Unlike elsewhere, None is meant: give it back.
        answer = self._native.call("routes", json.dumps({"sandbox": None, "changes": changes}))
        return read(RouteTable, json.loads(answer))

    def close(self, *, timeout: Timeout = None) -> None:
        """Removes everything that it deployed, and its own directory."""
        self._transport.call("close", timeout=timeout)
        self._directory.close()


class Platform:
    """A control plane in this process, on 127.0.0.1, and agents of it. As a context manager it is shut down at its end.

    Args:
        directory: Where everything is kept; a temporary one when None.
        port: The server's port; a free one when 0.
        settings: More of the server's configuration: ``{"auth": {"admins": ["ada"]}}``.

    Raises:
        InvalidSettings: The server cannot be started; the sentence says why.
    """

    def __init__(
        self,
        *,
        directory: Union[str, os.PathLike[str], None] = None,
        port: int = 0,
        settings: Optional[Mapping[str, Any]] = None,
    ) -> None:
        self._directory = _Directory(directory)
        path = self._directory.path
        config = {"listen": f"127.0.0.1:{port}", "data_dir": str(path / "server"), **(settings or {})}
        self._native = _sdp.Platform(write(config))

    def __enter__(self) -> Platform:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The server's address."""
        return self._native.url

    def start_agent(
        self,
        name: str,
        repos: Union[Iterable[Mapping[str, Any]], MemoryRepos] = (),
        *,
        deployer: Union[str, MemoryDeployer] = "process",
        ports: Ports = (20000, 29999),
        gateway: Optional[Mapping[str, Any]] = None,
        routes: Optional[MemoryRoutes] = None,
        settings: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """Enrols and starts an agent, and waits until it is connected. The arguments are those of :class:`Pipeline`.

        Raises:
            InvalidSettings: It cannot be started; the sentence says why.
        """
        source, declared = _source(repos)
        kind = deployer if isinstance(deployer, str) else "process"
        config = _agent_config(name, self._directory.path / name, declared, kind, ports, gateway, settings)
        machine = deployer._native if isinstance(deployer, MemoryDeployer) else None
        table = routes._native if routes is not None else None
        self._native.start_agent(write(config), source, machine, table)

    def stop_agent(self, name: str) -> None:
        """Stops an agent; what it runs goes on.

        Raises:
            InvalidSettings: There is none of this name.
        """
        self._native.stop_agent(name)

    def client(self, token: Optional[str] = None) -> Client:
        """A client of this server."""
        return Client(self.url, token=token)

    def login(self, user: str, password: str) -> Client:
        """Signs in, which an agent checks with the git host; the double takes anything unless told otherwise.

        Raises:
            InvalidCredentials: The git host refused them.
            AgentAway: No agent is connected.
        """
        return Client.login(self.url, user, password)

    def close(self) -> None:
        """Ends the agents and the server. What is deployed runs on: delete the sandboxes before."""
        self._native.shutdown()
        self._directory.close()


def _source(
    repos: Union[Iterable[Mapping[str, Any]], MemoryRepos],
) -> Tuple[Optional[_sdp.MemoryRepos], List[Mapping[str, Any]]]:
    if isinstance(repos, MemoryRepos):
        return repos._native, json.loads(repos._native.specs())
    return None, list(repos)
