"""The client for asyncio: :class:`Client` and its objects, whose methods are awaited.

It is the same as ``sdp.Client``, with ``async with``, ``await`` and ``async for``.
"""

from ._client import Client
from ._deployment import Credentials, Deployment
from ._sandbox import DeployedSandbox, Document, Sandbox, SandboxContext
from ._saved import Environment, Service, Template
from ._streams import Changes, LogFollow, OutputFollow

__all__ = [
    "Changes",
    "Client",
    "Credentials",
    "DeployedSandbox",
    "Deployment",
    "Document",
    "Environment",
    "LogFollow",
    "OutputFollow",
    "Sandbox",
    "SandboxContext",
    "Service",
    "Template",
]
