"""SDP, the Sandbox Deployment Platform, from Python.

- :class:`Client` waits for its answers; :class:`sdp.aio.Client` is the same for asyncio.
- :mod:`sdp.errors` has one exception class for each cause, :mod:`sdp.model` the plain data.
- :mod:`sdp.local` is the pipeline, or a whole platform, in this process; :mod:`sdp.testing` its doubles.
- :mod:`sdp.pytest_plugin` is loaded by pytest of itself.
"""

from . import aio, errors, model
from ._sdp import __version__

try:
    from ._sync import (
        Changes,
        Client,
        Credentials,
        DeployedSandbox,
        Deployment,
        Document,
        Environment,
        LogFollow,
        OutputFollow,
        Sandbox,
        SandboxContext,
        Service,
        Template,
    )
except ModuleNotFoundError as _missing:
    if _missing.name != f"{__name__}._sync":
        raise
    raise ImportError(
        "sdp was built without sdp/_sync, which is made from sdp/aio: run `python3 sdp-py/tools/unasync.py` in the "
        "source tree and build it again, or `make python`, which does both"
    ) from _missing

from . import local, testing
from .errors import SdpError
from .model import (
    CompletedCommand,
    DeploymentState,
    Event,
    LiveEvent,
    OutputLine,
    RouteTable,
    RouteTarget,
    SandboxState,
    ServiceSpec,
    Stage,
)

__all__ = [
    "Changes",
    "Client",
    "CompletedCommand",
    "Credentials",
    "DeployedSandbox",
    "Deployment",
    "DeploymentState",
    "Document",
    "Environment",
    "Event",
    "LiveEvent",
    "LogFollow",
    "OutputFollow",
    "OutputLine",
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
