"""Sandboxes."""

from __future__ import annotations

import secrets
import time
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, AsyncIterator, Dict, Iterable, List, Mapping, Optional, Type, Union

from .. import errors
from .._convert import read, seconds
from .._transport import AsyncTransport, Timeout, async_pause
from ..model import (
    AppliedSandbox,
    Change,
    DeploymentState,
    Explanation,
    RefusedService,
    RouteTable,
    RouteTarget,
    SandboxInfo,
)
from ._connection import Connection
from ._deployment import Credentials, Deployment, credentials_body

Document = Union[str, Mapping[str, Any]]
"""What a sandbox is to be: YAML, or the same as a mapping."""

_PAUSE = 0.05
"""Between two looks at what is to come, in seconds."""

HEADER = "X-SDP-Sandbox"
"""The header that carries a sandbox's key."""


def unique_name(prefix: str = "py") -> str:
    """A sandbox's name that nobody has."""
    return f"{prefix}-{secrets.token_hex(5)}"


def target_body(target: RouteTarget) -> RouteTarget:
    """A route's target as the API has it: a URL may be written as it is."""
    return {"url": target} if isinstance(target, str) and "://" in target else target


def document_body(name: str, document: Document) -> Dict[str, Any]:
    kind = "yaml" if isinstance(document, str) else "manifest"
    return {"name": name, kind: document}


def changes_of(data: Iterable[Mapping[str, Any]]) -> List[Change]:
    return [Change(it["change"], {key: value for key, value in it.items() if key != "change"}) for it in data]


class DeployedSandbox:
    """What deploying a whole sandbox began.

    Attributes:
        deployments: The deployments that have begun.
        refused: The services that could not be deployed, and why.
    """

    def __init__(self, deployments: List[Deployment], refused: List[RefusedService]) -> None:
        self.deployments = deployments
        self.refused = refused

    async def wait(self, timeout: Timeout = None) -> List[Deployment]:
        """Waits until all of them run.

        Args:
            timeout: Seconds, or a timedelta, for each; as long as it takes when None.

        Raises:
            TimeoutError: One goes on.
            SdpError: One was refused, or did not come up.
        """
        for refused in self.refused:
            problem = refused.problem
            kind = errors.BY_CODE.get(problem["code"], errors.SdpError)
            raise kind(f"{refused.repo}: {problem['detail']}", code=problem["code"], status=problem["status"])
        return [await deployment.wait(timeout) for deployment in self.deployments]


class Sandbox(SandboxInfo):
    """A sandbox on the platform. Its fields are as of when it was last asked for; :meth:`refresh` asks again.

    As a context manager it is deleted at the end, whatever happens inside.
    """

    _connection: Connection
    _version: Optional[str]

    @classmethod
    def _of(cls, connection: Connection, data: Mapping[str, Any], version: Optional[str] = None) -> Sandbox:
        made = read(cls, data)
        made._connection = connection
        made._version = version
        return made

    @property
    def _transport(self) -> AsyncTransport:
        return self._connection.transport

    def _take(self, data: Mapping[str, Any], version: Optional[str] = None) -> Sandbox:
        vars(self).update(vars(read(SandboxInfo, data)))
        self._version = version
        return self

    async def __aenter__(self) -> Sandbox:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self._tear_down()

    async def _tear_down(self) -> None:
        try:
            await self.delete()
        except errors.NotFound:
            # Somebody was faster, or its time was over.
            pass

    async def refresh(self) -> Sandbox:
        """Asks how it stands.

        Returns:
            Itself.

        Raises:
            NotFound: It is gone.
        """
        answer = await self._transport.call("sandboxes/get", {"name": self.name})
        return self._take(answer["value"], answer["version"])

    @property
    def key(self) -> str:
        """What a request carries to be served by it.

        Raises:
            LookupError: It is not known yet: :meth:`refresh` first.
        """
        if self.request_key is None:
            raise LookupError(f"the key of sandbox {self.name} is not known: refresh it first")
        return self.request_key.key

    @property
    def headers(self) -> Dict[str, str]:
        """The header of requests that are to be served by it, for any HTTP client."""
        return {HEADER: self.key}

    async def deploy(
        self,
        repo: str,
        branch: str,
        *,
        port: Optional[int] = None,
        env: Optional[Mapping[str, str]] = None,
        agent: Optional[str] = None,
        force: bool = False,
        credentials: Optional[Credentials] = None,
    ) -> Deployment:
        """Deploys a branch into it.

        Args:
            repo: The repo.
            branch: The branch.
            port: The host port; one is kept or picked when None.
            env: Environment variables, over those of the repo and the environment.
            agent: The agent; one is chosen when None.
            force: Whether what runs just so already is replaced too.
            credentials: Git user and password for this deployment alone.

        Returns:
            The deployment, which has begun; ``wait`` for it or ``follow`` it.

        Raises:
            UnknownRepo: No agent declares the repo.
            UnknownBranch: The remote does not have the branch.
            PortTaken: Another has the port; ``holder`` names it.
            AgentAway: The agent is not connected.
        """
        body = {
            "repo": repo,
            "branch": branch,
            "host_port": port,
            "env": env or {},
            "agent": agent,
            "force": force,
            "credentials": credentials_body(credentials),
        }
        data = await self._transport.call("sandboxes/deploy_into", {"name": self.name, "body": body})
        return Deployment._of(self._connection, data)

    async def deploy_all(self, *, credentials: Optional[Credentials] = None) -> DeployedSandbox:
        """Deploys every service of it, side by side, then sets the routes it wants.

        Returns:
            The deployments that have begun, and what was refused; ``wait`` for all of them.
        """
        body = {"name": self.name, "body": {"credentials": credentials_body(credentials)}}
        data = await self._transport.call("sandboxes/deploy", body)
        begun = [Deployment._of(self._connection, it) for it in data["deployments"]]
        return DeployedSandbox(begun, [read(RefusedService, it) for it in data.get("refused", [])])

    async def deployment(self, repo: str) -> Deployment:
        """The newest deployment of a repo in it.

        Raises:
            LookupError: The repo was never deployed into it.
        """
        await self.refresh()
        for info in self.deployments:
            if info.repo == repo:
                data = await self._transport.call("deployments/get", {"name": info.id})
                return Deployment._of(self._connection, data)
        raise LookupError(f"{repo} was never deployed into sandbox {self.name}")

    async def history(self) -> AsyncIterator[Deployment]:
        """Every deployment into it, the newest first."""
        async for data in self._connection.pages("deployments/list", {"sandbox": self.name}, "before"):
            yield Deployment._of(self._connection, data)

    async def routes(self) -> RouteTable:
        """The live table of its gateway.

        Raises:
            AgentAway: The gateway's agent is not connected.
        """
        return read(RouteTable, await self._transport.call("sandboxes/routes", {"name": self.name}))

    async def route(
        self,
        service: str,
        target: RouteTarget,
        *,
        takeover: bool = False,
        reason: Optional[str] = None,
        expires_in: Union[str, timedelta, None] = None,
    ) -> RouteTable:
        """Sets where the gateway sends a service, for every request.

        Args:
            service: The service: the ``eredar`` of the key ``eredar_url``.
            target: ``"sandbox"``, ``"ocp"`` or a URL.
            takeover: Whether to take it from the sandbox that has it.
            reason: Why, for those who would like the service.
            expires_in: How long it keeps others off: ``"2h"`` or a timedelta.

        Returns:
            The table as the gateway's file says afterwards.

        Raises:
            RouteClaimed: Another sandbox has it; ``holder`` names it.
            UnknownService: The gateway has no such service.
        """
        body = {"target": target_body(target), "takeover": takeover, "reason": reason, "expires_in": expires_in}
        asked = {"name": self.name, "service": service, "body": body}
        return read(RouteTable, await self._transport.call("sandboxes/set_route", asked))

    async def set_routes(
        self,
        routes: Mapping[str, RouteTarget],
        *,
        takeover: bool = False,
        reason: Optional[str] = None,
        expires_in: Union[str, timedelta, None] = None,
    ) -> RouteTable:
        """Sets many routes in one write and one reload: all or none.

        Args:
            routes: The target of each service.
            takeover: Whether to take them from the sandboxes that have them.
            reason: Why, for those who would like the services.
            expires_in: How long they keep others off: ``"2h"`` or a timedelta.

        Raises:
            RouteClaimed: Another sandbox has one; ``holder`` names it.
        """
        targets = {service: target_body(target) for service, target in routes.items()}
        body = {"routes": targets, "takeover": takeover, "reason": reason, "expires_in": expires_in}
        return read(RouteTable, await self._transport.call("sandboxes/set_routes", {"name": self.name, "body": body}))

    async def ready(self, timeout: Timeout = 60) -> Sandbox:
        """Waits until the gateway sends requests with its key to all that runs in it, which is a moment after it runs.

        Returns at once where the gateway does not route per request, or is not deployed.

        Args:
            timeout: Seconds, or a timedelta; as long as it takes when None.

        Returns:
            Itself.

        Raises:
            TimeoutError: The gateway does not send them there.
        """
        limit = seconds(timeout)
        end = None if limit is None else time.monotonic() + limit
        services = {
            it["name"]: it.get("service") for it in await self._transport.call("repos") if not it.get("gateway")
        }
        while True:
            await self.refresh()
            try:
                table = await self.routes()
            except errors.NotFound:
                return self
            missing = [service for service in self._unseen(services, table) if service not in table.not_routable]
            if not missing or not table.per_request:
                return self
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"the gateway does not send requests of sandbox {self.name} to its {missing[0]} yet")
            await async_pause(_PAUSE)

    def _unseen(self, services: Mapping[str, Optional[str]], table: RouteTable) -> Iterable[str]:
        """The services that run in it and that requests with its key do not reach."""
        seen = table.requests[self.name].services if self.name in table.requests else {}
        for deployment in self.deployments:
            service = services.get(deployment.repo)
            if service is None or service not in table or deployment.state is not DeploymentState.RUNNING:
                continue
            if seen.get(service, "").rstrip("/") != (deployment.url or "").rstrip("/"):
                yield service

    async def explain(self, service: str) -> Explanation:
        """Why a request of this sandbox reaches what it reaches."""
        asked = {"name": self.name, "service": service, "body": {}}
        return read(Explanation, await self._transport.call("sandboxes/explain", asked))

    async def extend(self, until: Union[str, timedelta, datetime]) -> Sandbox:
        """Moves its end.

        Args:
            until: How long from now, ``"3d"`` or a timedelta; or a time.

        Returns:
            Itself.
        """
        body = {"expires_at": until} if isinstance(until, datetime) else {"expires_in": until}
        return await self._change(body)

    async def share(self, users: Iterable[str]) -> Sandbox:
        """Says who besides its owner may do with it what its owner may, in place of those who may now.

        Returns:
            Itself.

        Raises:
            NotAllowed: It is somebody else's.
        """
        return await self._change({"shared_with": sorted(users)})

    async def _change(self, body: Mapping[str, Any]) -> Sandbox:
        answer = await self._transport.call("sandboxes/change", {"name": self.name, "body": body})
        return self._take(answer["value"], answer["version"])

    async def sleep(self) -> Sandbox:
        """Stops what runs in it, and keeps it.

        Returns:
            Itself.
        """
        return self._take(await self._transport.call("sandboxes/sleep", {"name": self.name}))

    async def wake(self) -> Sandbox:
        """Starts what its sleep had stopped.

        Returns:
            Itself.
        """
        return self._take(await self._transport.call("sandboxes/wake", {"name": self.name}))

    async def export(self) -> str:
        """The YAML document that, applied, gives the same sandbox."""
        return str(await self._transport.call("sandboxes/export_yaml", {"name": self.name}))

    async def diff(self, document: Document) -> List[Change]:
        """What applying a document would change.

        Raises:
            InvalidInput: The document is wrong; the sentence says where.
        """
        data = await self._transport.call("sandboxes/diff", document_body(self.name, document))
        return changes_of(data["changes"])

    async def apply(self, document: Document) -> AppliedSandbox:
        """Makes it as a document says. Applied again it does nothing.

        Raises:
            InvalidInput: The document is wrong; the sentence says where.
        """
        data = await self._transport.call("sandboxes/apply", document_body(self.name, document))
        self._take(data["sandbox"])
        applied = read(AppliedSandbox, {**data, "changes": [], "refused": data.get("refused", [])})
        applied.changes = changes_of(data["changes"])
        return applied

    async def clone(self, name: Optional[str] = None) -> Sandbox:
        """Makes another of the same shape, without its host ports. Nothing is deployed yet.

        Args:
            name: Its name; one is made when None.
        """
        body = {"name": name or unique_name(), "clone_of": self.name}
        made = Sandbox._of(self._connection, await self._transport.call("sandboxes/create", body))
        return await made.refresh()

    async def delete(self) -> bool:
        """Tears it down: containers, worktrees and routes.

        Returns:
            Whether all is gone; False while an agent that is away has some of it, which goes when it is back.

        Raises:
            NotFound: It is gone already.
        """
        return await self._transport.call("sandboxes/delete", {"name": self.name}) is None


class SandboxContext:
    """Makes a sandbox when it is entered, and deletes it at the end, whatever happens inside."""

    def __init__(
        self, connection: Connection, name: Optional[str], body: Mapping[str, Any], deploy: bool, keep: bool
    ) -> None:
        self._connection = connection
        # Nobody else has a name that was just made: what has it can be deleted unseen.
        self._is_unique = name is None
        self._body = {**body, "name": name or unique_name()}
        self._deploy = deploy
        self._keep = keep
        self._sandbox: Optional[Sandbox] = None

    async def __aenter__(self) -> Sandbox:
        transport = self._connection.transport
        try:
            made = Sandbox._of(self._connection, await transport.call("sandboxes/create", self._body))
        except errors.SdpError as error:
            if error.status is None:
                # No answer came: it may be there.
                await self._delete_what_was_begun()
            raise
        except BaseException:
            await self._delete_what_was_begun()
            raise
        try:
            await made.refresh()
            if self._deploy:
                await (await made.deploy_all()).wait()
                await made.ready()
        except BaseException:
            await made._tear_down()
            raise
        self._sandbox = made
        return made

    async def _delete_what_was_begun(self) -> None:
        if not self._is_unique:
            return
        try:
            await self._connection.transport.call("sandboxes/delete", {"name": self._body["name"]})
        except errors.SdpError:
            # It was not made, or cannot be reached: it ends with its time.
            pass

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._sandbox is not None and not self._keep:
            await self._sandbox._tear_down()
