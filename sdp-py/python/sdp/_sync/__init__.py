"""The client that waits. Generated from sdp.aio: see tools/unasync.py."""

from ._client import Client
from ._deployment import Credentials, Deployment
from ._sandbox import DeployedSandbox, Document, Sandbox, SandboxContext
from ._saved import Environment, Service, Template
from ._streams import Changes, LogFollow

__all__ = [
    "Changes",
    "Client",
    "Credentials",
    "DeployedSandbox",
    "Deployment",
    "Document",
    "Environment",
    "LogFollow",
    "Sandbox",
    "SandboxContext",
    "Service",
    "Template",
]
