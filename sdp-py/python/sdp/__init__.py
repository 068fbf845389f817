"""SDP, the Sandbox Deployment Platform, from Python.

- :class:`Client` waits for its answers; :class:`sdp.aio.Client` is the same for asyncio.
- :mod:`sdp.errors` has one exception class for each cause, :mod:`sdp.model` the plain data.
- :mod:`sdp.local` is the pipeline, or a whole platform, in this process; :mod:`sdp.testing` its doubles.
- :mod:`sdp.pytest_plugin` is loaded by pytest of itself.
"""

from . import aio, errors, local, model, testing
from ._sdp import __version__
from ._sync import (
    Changes,
    Client,
    Credentials,
    DeployedSandbox,
    Deployment,
    Document,
    Environment,
    LogFollow,
    Sandbox,
    SandboxContext,
    Service,
    Template,
)
from .errors import SdpError
from .model import DeploymentState, Event, LiveEvent, RouteTable, RouteTarget, SandboxState, ServiceSpec, Stage

__all__ = [
    "Changes",
    "Client",
    "Credentials",
    "DeployedSandbox",
    "Deployment",
    "DeploymentState",
    "Document",
    "Environment",
    "Event",
    "LiveEvent",
    "LogFollow",
    "RouteTable",
    "RouteTarget",
    "Sandbox",
    "SandboxContext",
    "SandboxState",
    "SdpError",
    "Service",
    "ServiceSpec",
    "Stage",
    "Template",
    "__version__",
    "aio",
    "errors",
    "local",
    "model",
    "testing",
]
