"""Environments and templates: what is saved under a name, and changed as a whole."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import Any, Iterable, Mapping, Optional, Union

from .._convert import read
from ..model import EnvironmentInfo, RouteTarget, ServiceSpec, TemplateInfo
from ._connection import Connection
from ._sandbox import target_body

Service = Union[ServiceSpec, Mapping[str, Any]]
"""A service of a template: ``ServiceSpec("eredar", "main")``, or the same as a mapping."""


def template_body(
    services: Iterable[Service], routes: Optional[Mapping[str, RouteTarget]], expires_in: Union[str, timedelta, None]
) -> Mapping[str, Any]:
    targets = {service: target_body(target) for service, target in (routes or {}).items()}
    return {"services": list(services), "routes": targets, "expires_in": expires_in}


class Environment(EnvironmentInfo):
    """An environment on the platform. Its fields are as of when it was last asked for."""

    _connection: Connection
    _version: Optional[str]

    @classmethod
    def _of(cls, connection: Connection, data: Mapping[str, Any], version: Optional[str] = None) -> Environment:
        made = read(cls, data)
        made._connection = connection
        made._version = version
        return made

    async def refresh(self) -> Environment:
        """Asks how it is.

        Returns:
            Itself.

        Raises:
            NotFound: It is gone.
        """
        return self._take(await self._connection.transport.call("environments/get", {"name": self.name}))

    async def save(self) -> Environment:
        """Sets everything of it as the fields are now.

        Returns:
            Itself.

        Raises:
            Changed: Somebody else changed it meanwhile: refresh it, and change that.
        """
        body = {field.name: getattr(self, field.name) for field in fields(EnvironmentInfo) if field.name != "name"}
        asked = {"name": self.name, "body": body, "version": self._version}
        return self._take(await self._connection.transport.call("environments/replace", asked))

    async def delete(self) -> None:
        """Deletes it.

        Raises:
            Conflict: A sandbox lives in it.
            Changed: Somebody else changed it meanwhile.
        """
        asked = {"name": self.name, "version": self._version}
        await self._connection.transport.call("environments/delete", asked)

    def _take(self, answer: Mapping[str, Any]) -> Environment:
        vars(self).update(vars(read(EnvironmentInfo, answer["value"])))
        self._version = answer["version"]
        return self


class Template(TemplateInfo):
    """A template on the platform. Its fields are as of when it was last asked for."""

    _connection: Connection
    _version: Optional[str]

    @classmethod
    def _of(cls, connection: Connection, data: Mapping[str, Any], version: Optional[str] = None) -> Template:
        made = read(cls, data)
        made._connection = connection
        made._version = version
        return made

    async def refresh(self) -> Template:
        """Asks how it is.

        Returns:
            Itself.

        Raises:
            NotFound: It is gone.
        """
        return self._take(await self._connection.transport.call("templates/get", {"name": self.name}))

    async def save(self) -> Template:
        """Sets everything of it as the fields are now.

        Returns:
            Itself.

        Raises:
            Changed: Somebody else changed it meanwhile: refresh it, and change that.
            NotAllowed: It is somebody else's.
        """
        body = template_body(self.services, self.routes, self.expires_in)
        asked = {"name": self.name, "body": body, "version": self._version}
        return self._take(await self._connection.transport.call("templates/replace", asked))

    async def delete(self) -> None:
        """Deletes it.

        Raises:
            Changed: Somebody else changed it meanwhile.
        """
        await self._connection.transport.call("templates/delete", {"name": self.name, "version": self._version})

    def _take(self, answer: Mapping[str, Any]) -> Template:
        vars(self).update(vars(read(TemplateInfo, answer["value"])))
        self._version = answer["version"]
        return self
