# Generated from sdp.aio by tools/unasync.py. Do not edit.
"""The client."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from types import TracebackType
from typing import Any, Iterator, Dict, Iterable, List, Mapping, Optional, Type, Union

from .. import _sdp, errors
from .._convert import read, seconds
from .._transport import Timeout
from ..model import (
    Agent,
    AppliedSandbox,
    AuditEntry,
    Branch,
    Change,
    DeploymentState,
    Explanation,
    Health,
    IssuedAgentToken,
    IssuedToken,
    Listing,
    Me,
    Repo,
    Role,
    RouteTarget,
    SandboxState,
    Scope,
    Token,
    User,
)
from ._connection import Connection
from ._deployment import Credentials, Deployment, credentials_body
from ._sandbox import Document, Sandbox, SandboxContext, changes_of, document_body, unique_name
from ._saved import Environment, Service, Template, template_body
from ._streams import Changes


class Client:
    """A client of one control plane, for one person or script.

    Requests have a time limit, and are sent again only where that is safe. Connections are shared by everything that
    comes from one client, and by those of :meth:`with_token`. It may be used by several threads, and after a fork.

    Args:
        url: The server's address, ``"https://sdp.example"``; that in the environment variable SDP_SERVER when None.
        token: A token of a session or for scripts; that in SDP_TOKEN when None. Without any, only what needs no
            sign-in can be asked.
        connect_timeout: How long a connection may take to be made, in seconds: 10.
        request_timeout: How long an answer may take, in seconds: 100, since some wait for agents.
        reconnect_for: For how long it is tried to go on with what is followed, in seconds: 300.
        retries: How often a request is sent again where that is safe: 3.
        ca_file: A file of PEM certificates to trust besides the machine's.

    Raises:
        InvalidSettings: The address, the token or the file cannot be used, or no address is given.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        token: Optional[str] = None,
        connect_timeout: Timeout = None,
        request_timeout: Timeout = None,
        reconnect_for: Timeout = None,
        retries: Optional[int] = None,
        ca_file: Union[str, os.PathLike[str], None] = None,
    ) -> None:
        url = url or os.environ.get("SDP_SERVER")
        if not url:
            raise errors.InvalidSettings("no server is named", cure="pass its address, or set SDP_SERVER")
        options = {
            "connect_timeout": seconds(connect_timeout),
            "request_timeout": seconds(request_timeout),
            "reconnect_for": seconds(reconnect_for),
            "retries": retries,
            "ca_file": None if ca_file is None else os.fspath(ca_file),
        }
        given = {name: option for name, option in options.items() if option is not None}
        native = _sdp.Client(url, token or os.environ.get("SDP_TOKEN") or None, json.dumps(given))
        self._connection = Connection(native)

    @classmethod
    def login(cls, url: Optional[str], user: str, password: str, **options: Any) -> Client:
        """Signs in with git user and password, which an agent checks with the git host.

        The server keeps them in its memory for the session's deployments.

        Args:
            url: As in the constructor.
            user: The git user.
            password: The git password or access token.
            options: The constructor's other arguments.

        Returns:
            A client with the session's token.

        Raises:
            InvalidCredentials: The git host refused them.
            RateLimited: There were too many attempts; ``retry_after`` says for how long.
        """
        client = cls(url, **options)
        signed = client._connection.transport.call("sign_in", {"username": user, "password": password})
        return client.with_token(signed["token"])

    def with_token(self, token: Optional[str]) -> Client:
        """The same, signed in with another token, or with none.

        Raises:
            InvalidSettings: The text cannot be a token.
        """
        made = object.__new__(type(self))
        made._connection = Connection(self._connection.native.with_token(token))
        return made

    @property
    def url(self) -> str:
        """The server's address."""
        return self._connection.native.url

    @property
    def token(self) -> Optional[str]:
        """The token it is signed in with."""
        return self._connection.native.token

    def __repr__(self) -> str:
        signed = "signed in" if self.token else "not signed in"
        return f"<{type(self).__module__.split('._')[0]}.Client {self.url} {signed}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        """Does nothing: connections that are not used end of themselves."""

    def _call(self, op: str, body: Any = None) -> Any:
        return self._connection.transport.call(op, body)

    def me(self) -> Me:
        """Who is signed in.

        Raises:
            NotSignedIn: Nobody, or the session has ended.
        """
        return read(Me, self._call("me"))

    def logout(self, *, everywhere: bool = False) -> None:
        """Ends the session, or every session of this user.

        Raises:
            NotAllowed: It is signed in with a token for scripts, which is revoked instead.
        """
        self._call("sign_out", {"everywhere": everywhere})

    def health(self) -> Health:
        """Whether the server lives, and its version."""
        return read(Health, self._call("health"))

    def readiness(self) -> Health:
        """Whether the server can do its work.

        Raises:
            EventsUnavailable: It cannot keep events; other errors say what else it cannot.
        """
        return read(Health, self._call("readiness"))

    def metrics(self) -> str:
        """The server's metrics, in the text format of Prometheus."""
        return str(self._call("metrics"))

    def openapi(self) -> Dict[str, Any]:
        """The description of the HTTP API, OpenAPI 3.1."""
        described: Dict[str, Any] = self._call("openapi")
        return described

    # What can be deployed, and where.

    def repos(self) -> Listing[Repo]:
        """The repos, with the agents that can deploy them."""
        return Listing(read(Repo, it) for it in self._call("repos"))

    def branches(self, repo: str, query: Optional[str] = None, *, limit: Optional[int] = None) -> Listing[Branch]:
        """A repo's branches as the remote has them now.

        Args:
            repo: The repo.
            query: Only names that contain this, whatever their case.
            limit: At most this many: 1 to 5000, default 100.

        Raises:
            UnknownRepo: No agent declares it.
            AgentAway: The agents that do are not connected.
        """
        asked = {"name": repo, "body": {"q": query, "limit": limit}}
        return Listing(read(Branch, it) for it in self._call("branches", asked))

    def agents(self) -> Listing[Agent]:
        """Every enrolled agent."""
        return Listing(read(Agent, it) for it in self._call("agents/list"))

    def agent(self, name: str) -> Agent:
        """An agent.

        Raises:
            NotFound: None has this name.
        """
        return read(Agent, self._call("agents/get", {"name": name}))

    def enrol_agent(self, name: str) -> IssuedAgentToken:
        """Enrols an agent. Only admins do.

        Returns:
            Its token, which is shown this once.

        Raises:
            Conflict: There is one of that name.
        """
        return read(IssuedAgentToken, self._call("agents/enrol", {"name": name}))

    def rotate_agent(self, name: str) -> IssuedAgentToken:
        """Gives an agent another token, and ends its connection. Only admins do.

        Raises:
            NotFound: None has this name.
        """
        return read(IssuedAgentToken, self._call("agents/rotate", {"name": name}))

    def revoke_agent(self, name: str) -> None:
        """Revokes an agent's token, and ends its connection. Only admins do.

        Raises:
            NotFound: None has this name.
        """
        self._call("agents/revoke", {"name": name})

    # Environments and templates.

    def environments(self) -> Listing[Environment]:
        """Every environment."""
        return Listing(Environment._of(self._connection, it) for it in self._call("environments/list"))

    def environment(self, name: str) -> Environment:
        """An environment.

        Raises:
            NotFound: None has this name.
        """
        answer = self._call("environments/get", {"name": name})
        return Environment._of(self._connection, answer["value"], answer["version"])

    def create_environment(
        self,
        name: str,
        *,
        gateway: Optional[str] = None,
        agents: Iterable[str] = (),
        env: Optional[Mapping[str, str]] = None,
        ports: Optional[str] = None,
        sandbox_lifetime: Union[str, timedelta, None] = None,
        idle_after: Union[str, timedelta, None] = None,
    ) -> Environment:
        """Makes an environment.

        Args:
            name: Its name.
            gateway: The agent whose gateway it uses.
            agents: The agents it may use; all when empty.
            env: Environment variables of everything deployed into it.
            ports: The host ports it may use: ``"20000-20999"``.
            sandbox_lifetime: How long its sandboxes live: ``"7d"`` or a timedelta.
            idle_after: After how long without use its sandboxes go to sleep.

        Raises:
            Conflict: There is one of that name.
        """
        body = {
            "name": name,
            "gateway": gateway,
            "agents": sorted(agents),
            "env": env or {},
            "ports": ports,
            "sandbox_lifetime": sandbox_lifetime,
            "idle_after": idle_after,
        }
        answer = self._call("environments/create", body)
        return Environment._of(self._connection, answer["value"], answer["version"])

    def templates(self) -> Listing[Template]:
        """Every template."""
        return Listing(Template._of(self._connection, it) for it in self._call("templates/list"))

    def template(self, name: str) -> Template:
        """A template.

        Raises:
            NotFound: None has this name.
        """
        answer = self._call("templates/get", {"name": name})
        return Template._of(self._connection, answer["value"], answer["version"])

    def create_template(
        self,
        name: str,
        *,
        services: Iterable[Service] = (),
        routes: Optional[Mapping[str, RouteTarget]] = None,
        expires_in: Union[str, timedelta, None] = None,
        from_sandbox: Optional[str] = None,
    ) -> Template:
        """Saves a template.

        Args:
            name: Its name.
            services: The services: ``ServiceSpec("eredar", "main")`` or mappings.
            routes: Where services go: ``{"eredar": "sandbox"}``.
            expires_in: How long sandboxes made from it live: ``"2d"`` or a timedelta.
            from_sandbox: Takes the shape of this sandbox in place of ``services`` and ``routes``.

        Raises:
            Conflict: There is one of that name.
        """
        body = {**template_body(services, routes, expires_in), "name": name, "from_sandbox": from_sandbox}
        answer = self._call("templates/create", body)
        return Template._of(self._connection, answer["value"], answer["version"])

    # Sandboxes.

    def sandboxes(
        self,
        *,
        owner: Optional[str] = None,
        environment: Optional[str] = None,
        state: Optional[SandboxState] = None,
        page: Optional[int] = None,
    ) -> Iterator[Sandbox]:
        """The sandboxes, by name. Those that are listed have no details: refresh one for them.

        Args:
            owner: Only those of this user.
            environment: Only those in this environment.
            state: Only those in this state.
            page: How many are asked for at once: 1 to 500, default 50.
        """
        wanted = {"owner": owner, "environment": environment, "state": state, "limit": page}
        for data in self._connection.pages("sandboxes/list", wanted, "after"):
            yield Sandbox._of(self._connection, data)

    def get_sandbox(self, name: str) -> Sandbox:
        """A sandbox that is there.

        Raises:
            NotFound: None has this name.
        """
        answer = self._call("sandboxes/get", {"name": name})
        return Sandbox._of(self._connection, answer["value"], answer["version"])

    def create_sandbox(
        self,
        name: Optional[str] = None,
        *,
        template: Optional[str] = None,
        clone_of: Optional[str] = None,
        branches: Optional[Mapping[str, str]] = None,
        environment: Optional[str] = None,
        expires_in: Union[str, timedelta, None] = None,
    ) -> Sandbox:
        """Makes a sandbox that stays. Nothing is deployed yet: ``deploy_all`` does.

        Args:
            name: Its name; one that nobody has is made when None.
            template: The template whose shape it begins with.
            clone_of: The sandbox whose shape it begins with.
            branches: Other branches than those of the template or that sandbox, by repo.
            environment: Where it lives.
            expires_in: How long it lives: ``"7d"`` or a timedelta.

        Raises:
            Conflict: There is one of that name.
            NotFound: There is no such template, environment or sandbox.
        """
        body = {
            "name": name or unique_name(),
            "template": template,
            "clone_of": clone_of,
            "branches": branches or {},
            "environment": environment,
            "expires_in": expires_in,
        }
        return Sandbox._of(self._connection, self._call("sandboxes/create", body)).refresh()

    def sandbox(
        self,
        name: Optional[str] = None,
        *,
        template: Optional[str] = None,
        clone_of: Optional[str] = None,
        branches: Optional[Mapping[str, str]] = None,
        environment: Optional[str] = None,
        expires_in: Union[str, timedelta, None] = "1d",
        deploy: bool = False,
        keep: bool = False,
    ) -> SandboxContext:
        """A sandbox for a ``with`` block: made when it is entered, deleted at its end, whatever happens inside.

        The arguments are those of :meth:`create_sandbox`, and:

        Args:
            expires_in: Its end should this program be killed: one day from now.
            deploy: Whether every service of it is deployed, and waited for, before the block begins.
            keep: Whether it is left alone at the end.

        Raises:
            SdpError: It could not be made, or a service did not come up; nothing of it is left then.
        """
        body = {
            "template": template,
            "clone_of": clone_of,
            "branches": branches or {},
            "environment": environment,
            "expires_in": expires_in,
        }
        return SandboxContext(self._connection, name, body, deploy, keep)

    def diff_sandbox(self, name: str, document: Document) -> List[Change]:
        """What applying a document would change of a sandbox, which need not be there.

        Raises:
            InvalidInput: The document is wrong; the sentence says where.
        """
        return changes_of((self._call("sandboxes/diff", document_body(name, document)))["changes"])

    def apply_sandbox(self, name: str, document: Document) -> AppliedSandbox:
        """Makes or changes a sandbox as a document says. Applied again it does nothing.

        Args:
            name: The sandbox.
            document: ``sandbox.yaml`` as text, or the same as a mapping.

        Raises:
            InvalidInput: The document is wrong; the sentence says where.
        """
        data = self._call("sandboxes/apply", document_body(name, document))
        applied = read(AppliedSandbox, {**data, "changes": [], "refused": data.get("refused", [])})
        applied.changes = changes_of(data["changes"])
        return applied

    # Deployments.

    def deploy(
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
        """Deploys a branch outside any sandbox. The arguments are those of ``Sandbox.deploy``.

        Returns:
            The deployment, which has begun; ``wait`` for it or ``follow`` it.

        Raises:
            UnknownRepo: No agent declares the repo.
            PortTaken: Another has the port; ``holder`` names it.
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
        return Deployment._of(self._connection, self._call("deployments/create", body))

    def deployment(self, id: str) -> Deployment:
        """A deployment.

        Raises:
            NotFound: None has this id.
        """
        return Deployment._of(self._connection, self._call("deployments/get", {"name": id}))

    def deployments(
        self,
        *,
        sandbox: Optional[str] = None,
        repo: Optional[str] = None,
        user: Optional[str] = None,
        state: Optional[DeploymentState] = None,
        page: Optional[int] = None,
    ) -> Iterator[Deployment]:
        """The history, the newest first.

        Args:
            sandbox: Only those of this sandbox.
            repo: Only those of this repo.
            user: Only those this user asked for.
            state: Only those in this state.
            page: How many are asked for at once: 1 to 500, default 50.
        """
        wanted = {"sandbox": sandbox, "repo": repo, "user": user, "state": state, "limit": page}
        for data in self._connection.pages("deployments/list", wanted, "before"):
            yield Deployment._of(self._connection, data)

    # What goes on.

    def events(self, from_: Optional[int] = None) -> Changes:
        """What changes on the platform, as it does.

        Args:
            from_: The first event wanted; those from now on when None.
        """
        return Changes(self._connection.native.events(from_))

    def explain(
        self,
        service: str,
        *,
        key: Optional[str] = None,
        cookie: Optional[str] = None,
        baggage: Optional[str] = None,
    ) -> Explanation:
        """Why a request to the shared gateway reaches what it reaches.

        Args:
            service: The service.
            key: The request's header X-SDP-Sandbox.
            cookie: Its header Cookie.
            baggage: Its header baggage.
        """
        asked = {"service": service, "key": key, "cookie": cookie, "baggage": baggage}
        return read(Explanation, self._call("explain", asked))

    def gateway(self) -> str:
        """Where the shared gateway answers, without a slash at the end.

        Raises:
            LookupError: No gateway is deployed.
        """
        for repo in self.repos():
            if repo.gateway:
                for deployment in self.deployments(repo=repo.name, state=DeploymentState.RUNNING):
                    if deployment.sandbox is None and deployment.url is not None:
                        return deployment.url.rstrip("/")
        raise LookupError("no gateway is deployed: deploy its repo first")

    def audit(
        self,
        *,
        user: Optional[str] = None,
        action: Optional[str] = None,
        subject: Optional[str] = None,
        page: Optional[int] = None,
    ) -> Iterator[AuditEntry]:
        """Who did what, the newest first.

        Args:
            user: Only what this user did.
            action: Only this action: ``"route-set"``.
            subject: Only what was done to this and to what is in it: ``"sandboxes/pay"``.
            page: How many are asked for at once: 1 to 500, default 50.
        """
        wanted = {"user": user, "action": action, "subject": subject, "limit": page}
        for data in self._connection.pages("audit", wanted, "before"):
            yield read(AuditEntry, data)

    # People and tokens.

    def tokens(self) -> Listing[Token]:
        """The tokens for scripts of who asks, the newest first."""
        return Listing(read(Token, it) for it in self._call("people/tokens"))

    def create_token(
        self,
        name: str,
        scopes: Iterable[Union[str, Scope]] = (Scope.DEPLOY,),
        *,
        expires_in: Union[str, timedelta, None] = None,
    ) -> IssuedToken:
        """Makes a token for scripts.

        Args:
            name: What it is for.
            scopes: What it may be used for: ``"read"``, ``"deploy"``, ``"admin"``.
            expires_in: How long it lives: at most 366 days, 90 when None.

        Returns:
            The token with its secret, which is shown this once.

        Raises:
            NotAllowed: A scope is beyond the user's role, or a token asks.
        """
        body = {"name": name, "scopes": sorted({str(scope) for scope in scopes}), "expires_in": expires_in}
        return read(IssuedToken, self._call("people/create_token", body))

    def revoke_token(self, id: str) -> None:
        """Revokes a token.

        Raises:
            NotFound: There is none of this id, or it is somebody else's.
        """
        self._call("people/revoke_token", {"name": id})

    def users(self) -> Listing[User]:
        """Everybody who has signed in. Only admins see them."""
        return Listing(read(User, it) for it in self._call("people/users"))

    def user(self, name: str) -> User:
        """Somebody who has signed in. Only admins see them.

        Raises:
            NotFound: Nobody of this name has.
        """
        return read(User, self._call("people/user", {"name": name}))

    def change_user(
        self, name: str, *, role: Union[str, Role, None] = None, disabled: Optional[bool] = None
    ) -> User:
        """Gives somebody a role, locks them out, or lets them in again. Only admins do.

        Raises:
            Conflict: The configuration says otherwise, or the last admin would go.
        """
        asked = {"name": name, "body": {"role": role, "disabled": disabled}}
        return read(User, self._call("people/change_user", asked))
