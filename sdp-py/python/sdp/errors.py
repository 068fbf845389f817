"""One exception class for each cause, all of them :class:`SdpError`.

What the server refuses has the class of its code, and so has why a deployment failed. What goes wrong on the way to the
server has a class of its own, with no ``status``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar, Dict, Optional, Type

if TYPE_CHECKING:
    from .model import DeploymentInfo, Stage


class SdpError(Exception):
    """An error of SDP's. As text it is a sentence that names the cause, and the cure where there is one.

    Attributes:
        code: The machine-readable cause, ``"port-taken"``.
        status: The HTTP status that carried it; None for what did not come from the server.
        detail: The sentence without the cure.
        cure: What can be done about it, where the sentence does not say so.
        field: The input at fault, ``"host_port"``.
        holder: The other party of a conflict: who holds the port or the route.
        retryable: Whether the same may succeed later.
        retry_after: After how many seconds, where that is known.
        deployment: The deployment that failed, where it is one.
        stage: The stage it failed in.
    """

    code: str = "internal"
    default_status: ClassVar[Optional[int]] = None

    def __init__(
        self,
        detail: str,
        *,
        code: Optional[str] = None,
        status: Optional[int] = None,
        cure: Optional[str] = None,
        field: Optional[str] = None,
        holder: Optional[str] = None,
        retryable: bool = False,
        retry_after: Optional[int] = None,
        deployment: Optional[DeploymentInfo] = None,
        stage: Optional[Stage] = None,
    ) -> None:
        super().__init__(detail)
        self.code = code if code is not None else type(self).code
        self.status = status if status is not None else self.default_status
        self.detail = detail
        self.cure = cure
        self.field = field
        self.holder = holder
        self.retryable = retryable
        self.retry_after = retry_after
        self.deployment = deployment
        self.stage = stage

    def __str__(self) -> str:
        return f"{self.detail} ({self.cure})" if self.cure else self.detail

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between processes, as those of xdist's workers do.
        return _again, (type(self), self.detail, {key: it for key, it in self.__dict__.items() if key != "detail"})


def _again(kind: Type[SdpError], detail: str, attributes: Dict[str, object]) -> SdpError:
    error = kind(detail)
    error.__dict__.update(attributes)
    return error


class InvalidInput(SdpError):
    """The input is not valid."""

    code = "invalid-input"
    default_status = 422


class BadRequest(SdpError):
    """The request could not be read."""

    code = "bad-request"
    default_status = 400


class NotSignedIn(SdpError):
    """Sign in first."""

    code = "not-signed-in"
    default_status = 401


class InvalidCredentials(SdpError):
    """The git host refused the credentials."""

    code = "invalid-credentials"
    default_status = 401


class NotAllowed(SdpError):
    """That is not allowed."""

    code = "not-allowed"
    default_status = 403


class NotFound(SdpError):
    """Not found."""

    code = "not-found"
    default_status = 404


class UnknownRepo(SdpError):
    """No such repo."""

    code = "unknown-repo"
    default_status = 404


class UnknownBranch(SdpError):
    """No such branch."""

    code = "unknown-branch"
    default_status = 404


class UnknownCommit(SdpError):
    """No such commit."""

    code = "unknown-commit"
    default_status = 404


class UnknownService(SdpError):
    """No such service."""

    code = "unknown-service"
    default_status = 404


class Conflict(SdpError):
    """That conflicts with the present state."""

    code = "conflict"
    default_status = 409


class PortTaken(SdpError):
    """The host port is taken."""

    code = "port-taken"
    default_status = 409


class RouteClaimed(SdpError):
    """Another sandbox owns the route."""

    code = "route-claimed"
    default_status = 409


class Changed(SdpError):
    """It has changed meanwhile."""

    code = "changed"
    default_status = 412


class RateLimited(SdpError):
    """Too many attempts."""

    code = "rate-limited"
    default_status = 429


class TooLarge(SdpError):
    """That is too large."""

    code = "too-large"
    default_status = 413


class AgentAway(SdpError):
    """The agent is away."""

    code = "agent-away"
    default_status = 503


class Timeout(SdpError):
    """That took too long."""

    code = "timeout"
    default_status = 504


class Cancelled(SdpError):
    """Cancelled."""

    code = "cancelled"
    default_status = 409


class Unsupported(SdpError):
    """Not supported by the other side."""

    code = "unsupported"
    default_status = 501


class HostUnreachable(SdpError):
    """The git host cannot be reached."""

    code = "host-unreachable"
    default_status = 502


class GitFailed(SdpError):
    """Git failed."""

    code = "git-failed"
    default_status = 502


class CheckoutFailed(SdpError):
    """The checkout could not be prepared."""

    code = "checkout-failed"
    default_status = 500


class BuildFailed(SdpError):
    """The build failed."""

    code = "build-failed"
    default_status = 422


class ToolMissing(SdpError):
    """A build tool is missing."""

    code = "tool-missing"
    default_status = 500


class ImageMissing(SdpError):
    """The container image is missing."""

    code = "image-missing"
    default_status = 409


class StartFailed(SdpError):
    """The instance could not be started."""

    code = "start-failed"
    default_status = 500


class Unhealthy(SdpError):
    """The instance did not become healthy."""

    code = "unhealthy"
    default_status = 500


class EngineUnavailable(SdpError):
    """The container engine does not answer."""

    code = "engine-unavailable"
    default_status = 503


class DiskFull(SdpError):
    """The disk is nearly full."""

    code = "disk-full"
    default_status = 507


class GatewayConfigInvalid(SdpError):
    """The gateway's configuration cannot be patched."""

    code = "gateway-config-invalid"
    default_status = 409


class GatewayWriteFailed(SdpError):
    """The gateway's configuration could not be written."""

    code = "gateway-write-failed"
    default_status = 500


class GatewayReloadFailed(SdpError):
    """The gateway did not take the change over."""

    code = "gateway-reload-failed"
    default_status = 500


class EventsUnavailable(SdpError):
    """Events cannot be stored."""

    code = "events-unavailable"
    default_status = 503


class Internal(SdpError):
    """Something went wrong inside SDP."""

    code = "internal"
    default_status = 500


class Unreachable(SdpError):
    """No connection to the server could be made: nothing was carried out."""

    code = "unreachable"


class Untrusted(SdpError):
    """The server's certificate is not trusted, or it does not speak TLS."""

    code = "untrusted"


class TimedOut(SdpError):
    """The answer did not come in time. What was asked for may have been carried out."""

    code = "timed-out"


class Broken(SdpError):
    """The connection broke before the answer was there. What was asked for may have been carried out."""

    code = "broken"


class NotSdp(SdpError):
    """Something answered that is not SDP's server."""

    code = "not-sdp"


class Unreadable(SdpError):
    """The answer cannot be read: server and client are of different versions."""

    code = "unreadable"


class NoWebsocket(SdpError):
    """The server can be reached, and no WebSocket gets through to it."""

    code = "no-websocket"


class Gap(SdpError):
    """Lines of a log that was followed are not there any more."""

    code = "gap"


class InvalidSettings(SdpError):
    """What was given here cannot be used: an address, a token, a file."""

    code = "invalid-settings"


BY_CODE: Dict[str, Type[SdpError]] = {kind.code: kind for kind in SdpError.__subclasses__()}
"""The class of each code."""


def _from_native(text: str) -> SdpError:
    given = json.loads(text)
    kind = BY_CODE.get(given["code"], SdpError)
    return kind(given.pop("detail"), **given)
