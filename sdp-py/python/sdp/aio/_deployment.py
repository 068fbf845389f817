"""Deployments."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence, Tuple

from .. import errors
from .._convert import read, write
from .._transport import AsyncTransport, Timeout
from ..model import CompletedCommand, DeploymentInfo, DeploymentState, Failure
from ._connection import Connection
from ._streams import LogFollow, OutputFollow

Credentials = Tuple[str, str]
"""A git user and password, for one deployment alone. They are never kept."""


def credentials_body(credentials: Optional[Credentials]) -> Optional[Mapping[str, str]]:
    if credentials is None:
        return None
    return {"username": credentials[0], "password": credentials[1]}


def failed(info: DeploymentInfo, failure: Failure) -> errors.SdpError:
    """The error that a failed deployment is."""
    kind = errors.BY_CODE.get(failure.code, errors.SdpError)
    sentence = f"{info.repo} {info.branch} did not come up: {failure.reason}"
    return kind(sentence, code=failure.code, deployment=info, stage=failure.stage)


class Deployment(DeploymentInfo):
    """A deployment on the platform. Its fields are as of when it was last asked for; :meth:`refresh` asks again."""

    _connection: Connection

    @classmethod
    def _of(cls, connection: Connection, data: Mapping[str, Any]) -> Deployment:
        made = read(cls, data)
        made._connection = connection
        return made

    @property
    def _transport(self) -> AsyncTransport:
        return self._connection.transport

    def _take(self, data: Mapping[str, Any]) -> Deployment:
        vars(self).update(vars(read(DeploymentInfo, data)))
        return self

    async def refresh(self) -> Deployment:
        """Asks how it stands.

        Returns:
            Itself.

        Raises:
            NotFound: It is so old that it was removed.
        """
        return self._take(await self._transport.call("deployments/get", {"name": self.id}))

    async def wait(self, timeout: Timeout = None, *, check: bool = True) -> Deployment:
        """Waits until its pipeline has ended.

        Args:
            timeout: Seconds, or a timedelta; as long as it takes when None.
            check: Whether a deployment that does not run then is an error.

        Returns:
            Itself, as it is then.

        Raises:
            TimeoutError: It goes on.
            SdpError: It did not come up: of the class of the failure's code (BuildFailed, Unhealthy, …; Cancelled),
                with ``deployment`` and ``stage``.
        """
        self._take(await self._transport.call("deployments/wait", {"name": self.id}, timeout=timeout))
        if check and self.failure is not None:
            raise failed(self, self.failure)
        if check and self.state is DeploymentState.CANCELLED:
            raise errors.Cancelled(f"{self.repo} {self.branch} was cancelled", deployment=self)
        if check and self.state is DeploymentState.SUPERSEDED:
            raise errors.Conflict(f"{self.repo} {self.branch} gave way to a newer deployment", deployment=self)
        return self

    def follow(self, from_: int = 1) -> LogFollow:
        """Its log as it is written, to its end. Each event is, as text, a line for people.

        Args:
            from_: The first line wanted; 1 is the first.
        """
        return LogFollow(self._connection.native.follow(self.id, from_))

    async def log(self, *, from_: Optional[int] = None, tail: Optional[int] = None) -> str:
        """Its log so far, as text for people.

        Args:
            from_: The first line wanted.
            tail: Only the last lines, so many; goes before ``from_``.

        Raises:
            NotFound: It is so old that it was removed.
        """
        body = {"name": self.id, "body": {"from": from_, "tail": tail}}
        return str(await self._transport.call("deployments/log", body))

    async def output(self, *, tail: Optional[int] = None) -> str:
        """What its program has printed so far.

        Args:
            tail: Only the last lines, so many.

        Raises:
            Conflict: No program of it is there.
            AgentAway: The agent that it runs on cannot be asked.
        """
        return str(await self._transport.call("deployments/output", {"name": self.id, "body": {"tail": tail}}))

    def follow_output(self, *, tail: Optional[int] = None) -> OutputFollow:
        """What its program prints, as it does, until it ends. Each line is, as text, as it was printed.

        Args:
            tail: Of what was printed already only the last lines, so many; all of it when None.

        Raises:
            InvalidInput: There is no such number of lines.
        """
        asked = write({"name": self.id, "body": {"tail": tail}})
        return OutputFollow(self._connection.native.follow_output(asked))

    async def exec(self, command: Sequence[str], *, timeout: Timeout = None) -> CompletedCommand:
        """Runs a command where its program runs, in its container, and waits until it has exited.

        No shell reads it: ``["sh", "-c", "env | sort"]`` brings one. The platform's audit keeps it, so that no secret
        belongs on it. It is ended when this is given up.

        Args:
            command: The program and its arguments.
            timeout: Seconds, or a timedelta; as long as the agent allows when None.

        Returns:
            What it printed, and its exit code, whatever that is.

        Raises:
            Conflict: It does not run.
            NotAllowed: The agent's operator does not allow commands, or the role does not.
            InvalidInput: That is no command.
            TimeoutError: It took longer; it was ended.
        """
        asked = {"name": self.id, "body": {"command": command}}
        return read(CompletedCommand, await self._transport.call("deployments/exec", asked, timeout=timeout))

    async def cancel(self) -> Deployment:
        """Cancels it; what served before serves again.

        Returns:
            Itself.

        Raises:
            Conflict: It has ended.
        """
        return self._take(await self._transport.call("deployments/cancel", {"name": self.id}))

    async def stop(self) -> Deployment:
        """Stops what it runs.

        Returns:
            Itself.

        Raises:
            Conflict: It runs nothing.
        """
        return self._take(await self._transport.call("deployments/stop", {"name": self.id}))

    async def restart(self) -> Deployment:
        """Starts it again.

        Returns:
            Itself.

        Raises:
            Conflict: There is nothing to start.
        """
        return self._take(await self._transport.call("deployments/restart", {"name": self.id}))

    async def retry(self, *, credentials: Optional[Credentials] = None) -> Deployment:
        """Deploys the same once more.

        Returns:
            The new deployment, which has begun.
        """
        body = {"name": self.id, "body": {"credentials": credentials_body(credentials)}}
        return self._of(self._connection, await self._transport.call("deployments/retry", body))

    async def rollback(self, *, credentials: Optional[Credentials] = None) -> Deployment:
        """Deploys exactly what was before: this one if it was replaced, the last that was something else otherwise.

        Returns:
            The new deployment, which has begun.

        Raises:
            Conflict: There is none to go back to.
        """
        body = {"name": self.id, "body": {"credentials": credentials_body(credentials)}}
        return self._of(self._connection, await self._transport.call("deployments/rollback", body))
