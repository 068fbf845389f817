"""What the platform tells, as plain data: the answers of its HTTP API.

Times are aware datetimes in UTC, durations timedeltas, states enumerations whose members equal their text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Dict, List, Mapping, Optional, Union

from ._html import Listing, Shown, rows

__all__ = [
    "Agent",
    "AppliedSandbox",
    "AuditEntry",
    "Branch",
    "Change",
    "CompletedCommand",
    "DeploymentInfo",
    "DeploymentState",
    "EnvironmentInfo",
    "Event",
    "Explanation",
    "Failure",
    "GatewayInfo",
    "Health",
    "Instance",
    "Inventory",
    "IssuedAgentToken",
    "IssuedToken",
    "Listing",
    "LiveEvent",
    "LogStream",
    "LostRoute",
    "Me",
    "OutputLine",
    "OwnGateway",
    "RefusedService",
    "Repo",
    "RepoInfo",
    "RequestKey",
    "RequestRoutes",
    "Role",
    "Route",
    "RouteOrigin",
    "RouteTable",
    "RouteTarget",
    "SandboxInfo",
    "SandboxState",
    "Scope",
    "ServiceSpec",
    "Stage",
    "StageRecord",
    "StageStatus",
    "TemplateInfo",
    "Token",
    "User",
]

RouteTarget = Union[str, Mapping[str, str]]
"""Where a route goes: ``"ocp"`` (the stable cluster), ``"sandbox"`` (the sandbox's own deployment), or a URL."""


class _Text(str, Enum):
    """An enumeration whose members are their text."""

    def __str__(self) -> str:
        return str(self.value)


class Stage(_Text):
    """A step of a deployment."""

    SOURCE = "source"
    BUILD = "build"
    START = "start"
    HEALTH = "health"
    ROUTES = "routes"


class StageStatus(_Text):
    """How a stage stands."""

    STARTED = "started"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


class DeploymentState(_Text):
    """Where a deployment is."""

    QUEUED = "queued"
    SOURCE = "source"
    BUILD = "build"
    START = "start"
    HEALTH = "health"
    ROUTES = "routes"
    RUNNING = "running"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    SUPERSEDED = "superseded"

    @property
    def is_active(self) -> bool:
        """Whether the pipeline still works on it."""
        return self.value in ("queued", "source", "build", "start", "health", "routes")


class SandboxState(_Text):
    """What becomes of a sandbox."""

    ACTIVE = "active"
    ASLEEP = "asleep"
    DELETING = "deleting"


class RouteOrigin(_Text):
    """Where a route's value comes from."""

    OCP = "ocp"
    SANDBOX = "sandbox"
    CUSTOM = "custom"
    DRIFTED = "drifted"


class LogStream(_Text):
    """Where a line of a log comes from: a command's output, or SDP's own account."""

    STDOUT = "stdout"
    STDERR = "stderr"
    SDP = "sdp"


class Role(_Text):
    """What a person may do; each may do what those before it may."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    ADMIN = "admin"


class Scope(_Text):
    """What a token may be used for."""

    READ = "read"
    DEPLOY = "deploy"
    ADMIN = "admin"


@dataclass
class Failure(Shown):
    """Why a deployment failed: the code of an error, and a sentence."""

    code: str
    reason: str
    stage: Optional[Stage] = None
    previous_restored: Optional[bool] = None

    def __str__(self) -> str:
        return self.reason


@dataclass
class StageRecord(Shown):
    """One stage of one deployment."""

    stage: Stage
    status: StageStatus
    started_at: datetime
    ended_at: Optional[datetime] = None

    @property
    def duration(self) -> Optional[timedelta]:
        """How long it took; none while it runs."""
        return self.ended_at - self.started_at if self.ended_at else None

    def __str__(self) -> str:
        took = f" {self.duration.total_seconds():.1f} s" if self.duration is not None else ""
        return f"{self.stage} {self.status}{took}"


@dataclass
class DeploymentInfo(Shown):
    """A deployment: one attempt to put one branch of one repo into a sandbox, or outside any."""

    id: str
    repo: str
    branch: str
    agent: str
    state: DeploymentState
    user: str
    created_at: datetime
    sandbox: Optional[str] = None
    commit: Optional[str] = None
    failure: Optional[Failure] = None
    host_port: Optional[int] = None
    url: Optional[str] = None
    env: Dict[str, str] = field(default_factory=dict)
    finished_at: Optional[datetime] = None
    rollback_of: Optional[str] = None
    stages: List[StageRecord] = field(default_factory=list)

    def __str__(self) -> str:
        where = f"{self.sandbox}/{self.repo}" if self.sandbox else self.repo
        return f"{where} {self.branch} {self.state}"


@dataclass
class Event(Shown):
    """One event of a deployment; as text, its line of the log.

    ``type`` is ``log`` (``stage``, ``stream``, ``line``), ``stage`` (``stage``, ``status``), ``state`` (``state``,
    ``failure``), ``source`` (``branch``, ``commit``), ``endpoint`` (``host_port``, ``url``, ``instance``) or ``route``.
    """

    seq: int
    at: datetime
    type: str
    text: str
    stage: Optional[Stage] = None
    stream: Optional[LogStream] = None
    line: Optional[str] = None
    status: Optional[StageStatus] = None
    state: Optional[DeploymentState] = None
    failure: Optional[Failure] = None
    branch: Optional[str] = None
    commit: Optional[str] = None
    host_port: Optional[int] = None
    url: Optional[str] = None
    instance: Optional[str] = None
    route: Optional[Route] = None

    def __str__(self) -> str:
        return self.text


@dataclass
class OutputLine(Shown):
    """One line that a program printed; as text, the line itself."""

    stream: LogStream
    text: str = field(metadata={"key": "line"})

    def __str__(self) -> str:
        return self.text


@dataclass
class CompletedCommand(Shown):
    """A command that was run where a deployment runs, and has exited; as text, what it printed to standard output."""

    stdout: str
    stderr: str
    code: int

    def __str__(self) -> str:
        return self.stdout


@dataclass
class ServiceSpec(Shown):
    """One service of a sandbox or template: which branch of which repo, and how it is deployed."""

    repo: str
    branch: str
    host_port: Optional[int] = None
    env: Dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.repo} {self.branch}"


@dataclass
class RequestKey(Shown):
    """What a request carries to be served by a sandbox, in every form. It selects routes and grants nothing."""

    key: str
    header: str
    cookie: str
    baggage: str
    per_request: bool
    curl: Optional[str] = None

    def __str__(self) -> str:
        return self.header


@dataclass
class LostRoute(Shown):
    """A route that another sandbox took."""

    service: str
    url: str
    by: str
    user: str
    at: datetime

    def __str__(self) -> str:
        return f"{self.service} taken by {self.by}"


@dataclass
class OwnGateway(Shown):
    """The gateway that a sandbox brings."""

    agent: str
    deployment: str
    state: DeploymentState
    url: Optional[str] = None


@dataclass
class SandboxInfo(Shown):
    """A sandbox: a named, owned set of deployments and route overrides, with an end."""

    name: str
    environment: str
    owner: str
    created_at: datetime
    expires_at: datetime
    state: SandboxState = SandboxState.ACTIVE
    shared_with: List[str] = field(default_factory=list)
    expires_soon: bool = False
    services: List[ServiceSpec] = field(default_factory=list)
    branches: Dict[str, str] = field(default_factory=dict)
    wanted_routes: Dict[str, Any] = field(default_factory=dict, metadata={"key": "routes"})
    problem: Optional[str] = None
    deployments: List[DeploymentInfo] = field(default_factory=list)
    request_key: Optional[RequestKey] = None
    taken: List[LostRoute] = field(default_factory=list)
    gateway: Optional[OwnGateway] = None

    def __str__(self) -> str:
        return f"{self.name} ({self.state})"


@dataclass
class RefusedService(Shown):
    """A service that could not be deployed, and the error's problem details."""

    repo: str
    problem: Dict[str, Any]

    def __str__(self) -> str:
        return f"{self.repo}: {self.problem.get('detail', '')}"


@dataclass
class Change(Shown):
    """One difference between a sandbox and a document.

    ``change`` is ``create``, ``set-expiry``, ``remove-service``, ``add-service``, ``change-service``,
    ``deploy-again`` or ``set-route``; ``details`` has the rest, as the HTTP API does.
    """

    change: str
    details: Dict[str, Any]


@dataclass
class AppliedSandbox(Shown):
    """What applying a document did."""

    changes: List[Change]
    deployments: List[DeploymentInfo]
    refused: List[RefusedService]
    sandbox: SandboxInfo


@dataclass
class Route(Shown):
    """One line of a gateway's route table."""

    service: str
    value: str
    origin: RouteOrigin
    default: str
    expression: bool = False
    owner: Optional[str] = None
    reason: Optional[str] = None
    expires_at: Optional[datetime] = None
    effective: Optional[str] = None

    def __str__(self) -> str:
        return f"{self.service} -> {self.value} ({self.origin})"


@dataclass
class RequestRoutes(Shown):
    """What requests that carry a sandbox's key see."""

    key: str
    services: Dict[str, str] = field(default_factory=dict)


@dataclass
class RouteTable(Shown):
    """A gateway's routes, read from its file. ``table["eredar"]`` is one line, and iteration gives all."""

    routes: List[Route]
    branch: Optional[str] = None
    per_request: bool = False
    requests: Dict[str, RequestRoutes] = field(default_factory=dict)
    not_routable: Dict[str, str] = field(default_factory=dict)
    taken: List[Dict[str, Any]] = field(default_factory=list)
    warnings: List[str] = field(default_factory=list)

    def __getitem__(self, service: str) -> Route:
        """The line of a service; KeyError when the gateway has no such service."""
        for route in self.routes:
            if route.service == service:
                return route
        raise KeyError(service)

    def __contains__(self, service: object) -> bool:
        return any(route.service == service for route in self.routes)

    def __len__(self) -> int:
        return len(self.routes)

    def _repr_html_(self) -> str:
        heads = ["service", "value", "origin", "owner", "default"]
        return rows(heads, ([it.service, it.value, it.origin, it.owner, it.default] for it in self.routes))


@dataclass
class Explanation(Shown):
    """Why a request reaches what it reaches; the reasons are in ``because``, the most telling last."""

    service: str
    served_by: str
    because: List[str]
    key: Optional[str] = None
    carrier: Optional[str] = None
    sandbox: Optional[str] = None
    target: Optional[str] = None
    expression: bool = False
    answer: Optional[Dict[str, Any]] = None

    def __str__(self) -> str:
        return "\n".join(self.because)


@dataclass
class EnvironmentInfo(Shown):
    """Where sandboxes live. ``ports`` is a range: ``"20000-20999"``."""

    name: str
    gateway: Optional[str] = None
    agents: List[str] = field(default_factory=list)
    env: Dict[str, str] = field(default_factory=dict)
    ports: Optional[str] = None
    sandbox_lifetime: Optional[timedelta] = None
    idle_after: Optional[timedelta] = None

    def __str__(self) -> str:
        return self.name


@dataclass
class TemplateInfo(Shown):
    """A saved shape that sandboxes are made from."""

    name: str
    owner: str
    saved_at: datetime
    services: List[ServiceSpec] = field(default_factory=list)
    routes: Dict[str, Any] = field(default_factory=dict)
    expires_in: Optional[timedelta] = None

    def __str__(self) -> str:
        return self.name


@dataclass
class Repo(Shown):
    """What can be deployed, and by which agents."""

    name: str
    agents: List[str] = field(default_factory=list)
    service: Optional[str] = None
    gateway: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass
class Branch(Shown):
    """A branch as the remote has it now."""

    name: str
    commit: str

    def __str__(self) -> str:
        return self.name


@dataclass
class RepoInfo(Shown):
    """A repo as an agent declares it."""

    name: str
    recipe: str
    service: Optional[str] = None
    url_prefix: Optional[str] = None

    def __str__(self) -> str:
        return self.name


@dataclass
class GatewayInfo(Shown):
    """The gateway that an agent owns."""

    repo: str
    branch: Optional[str] = None
    per_request: bool = False
    own_gateways: bool = False


@dataclass
class Inventory(Shown):
    """What an agent told of itself."""

    version: str
    advertise: str
    deployer: str
    repos: List[RepoInfo] = field(default_factory=list)
    port_range: Optional[str] = None
    gateway: Optional[GatewayInfo] = None
    exact_commits: bool = False
    serves_beside: bool = False
    exec: Optional[bool] = None

    def __str__(self) -> str:
        return f"{self.version} on {self.advertise} ({self.deployer})"


@dataclass
class Agent(Shown):
    """The daemon on one machine."""

    name: str
    connected: bool
    active_deployments: int = 0
    transport: Optional[str] = None
    last_seen: Optional[datetime] = None
    inventory: Optional[Inventory] = None

    def __str__(self) -> str:
        return f"{self.name} ({'connected' if self.connected else 'away'})"


@dataclass
class IssuedAgentToken:
    """A token for an agent, shown this once."""

    name: str
    token: str = field(repr=False)


@dataclass
class Token(Shown):
    """A token for scripts, without its secret."""

    id: str
    user: str
    name: str
    scopes: List[Scope]
    created_at: datetime
    expires_at: datetime
    last_used: Optional[datetime] = None

    def __str__(self) -> str:
        return self.name


@dataclass
class IssuedToken:
    """A token that was just made. Its secret is shown this once."""

    secret: str = field(repr=False)
    token: Token


@dataclass
class User(Shown):
    """A person who has signed in."""

    name: str
    role: Role
    first_seen: datetime
    last_seen: datetime
    disabled: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass
class Me(Shown):
    """Who is signed in, and what they may do with what they signed in with."""

    user: str
    role: Role
    expires_at: datetime
    token: Optional[Token] = None

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"


@dataclass
class Health(Shown):
    """How the control plane is."""

    status: str
    version: str
    agents_connected: Optional[int] = None


@dataclass
class AuditEntry(Shown):
    """One thing that was done."""

    id: int
    at: datetime
    action: str
    subject: str
    user: Optional[str] = None
    address: Optional[str] = None
    deployment: Optional[str] = None
    detail: Optional[str] = None

    def __str__(self) -> str:
        return f"{self.user or 'sdp'} {self.action} {self.subject}"


@dataclass
class LiveEvent(Shown):
    """Something that changed on the platform, or what the stream says of itself.

    ``type`` is ``deployment``, ``sandbox``, ``route``, ``agent``, ``environment``, ``template`` or ``started``; and
    ``position`` (the stream begins with event ``next``) or ``gap`` (events from ``from_`` up to ``oldest`` are kept no
    more: look at everything anew).
    """

    type: str
    seq: Optional[int] = None
    at: Optional[datetime] = None
    id: Optional[str] = None
    name: Optional[str] = None
    change: Optional[str] = None
    sandbox: Optional[str] = None
    repo: Optional[str] = None
    branch: Optional[str] = None
    commit: Optional[str] = None
    agent: Optional[str] = None
    user: Optional[str] = None
    owner: Optional[str] = None
    state: Optional[str] = None
    url: Optional[str] = None
    gateway: Optional[str] = None
    services: List[str] = field(default_factory=list)
    sandboxes: List[str] = field(default_factory=list)
    version: Optional[str] = None
    next: Optional[int] = None
    from_: Optional[int] = None
    oldest: Optional[int] = None


@dataclass
class Instance(Shown):
    """What runs: one instance of a repo on a machine."""

    key: Dict[str, str]
    id: str
    name: str
    deployment: str
    branch: str
    commit: str
    host_port: int
    state: Dict[str, Any]
    host: Optional[str] = None
    started_at: Optional[datetime] = None
    restarts: int = 0
    parked: bool = False

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host or '127.0.0.1'}:{self.host_port}"

    def __str__(self) -> str:
        return f"{self.name} on port {self.host_port}"
