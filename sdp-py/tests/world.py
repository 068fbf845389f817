"""What a test of the package has at hand."""

from __future__ import annotations

from dataclasses import dataclass

import sdp
from sdp.testing import MemoryDeployer, MemoryRepos, MemoryRoutes


@dataclass
class World:
    """The platform, its parts, and a client that may do everything."""

    platform: sdp.local.Platform
    repos: MemoryRepos
    machine: MemoryDeployer
    routes: MemoryRoutes
    client: sdp.Client
