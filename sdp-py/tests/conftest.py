"""A platform in this process, on doubles, for the tests that need no real parts."""

from __future__ import annotations

from typing import Iterator

import pytest
from world import World

import sdp
from sdp.testing import MemoryDeployer, MemoryRepos, MemoryRoutes

pytest_plugins = ["pytester"]

STABLE = {"eredar": "http://eredar.stable.example", "illidan": "http://illidan.stable.example"}


@pytest.fixture
def world() -> Iterator[World]:
    branches = {"main": {"a": "1"}, "feature/x": {"a": "2"}}
    repos = MemoryRepos(eredar=branches, illidan=branches)
    repos.add("gateway")
    repos.push("gateway", "main")
    machine, routes = MemoryDeployer(), MemoryRoutes("main", **STABLE)
    routes.route_per_request()
    gateway = {"repo": "gateway", "config": "config.php", "per_request": True}
    with sdp.local.Platform(settings={"auth": {"admins": ["ada"]}}) as platform:
        allowed = {"exec": True}
        platform.start_agent("micro-1", repos, deployer=machine, gateway=gateway, routes=routes, settings=allowed)
        yield World(platform, repos, machine, routes, platform.login("ada", "secret"))


@pytest.fixture
def client(world: World) -> sdp.Client:
    return world.client
