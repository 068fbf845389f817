"""Where the whole platform is."""

from __future__ import annotations

from dataclasses import dataclass

import sdp


@dataclass
class Playground:
    """A platform with a git host, two services, a gateway and a stable cluster."""

    client: sdp.Client
    gateway: str
    environment: dict[str, str]
