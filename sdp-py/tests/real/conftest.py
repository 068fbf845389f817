"""The whole platform on real parts. ``make python`` starts it, and says where it is."""

from __future__ import annotations

import os

import pytest
from places import Playground

import sdp
from sdp import ServiceSpec


@pytest.fixture(scope="session")
def playground() -> Playground:
    """Signed in, with the gateway deployed and the template `checkout` saved."""
    if "SDP_URL" not in os.environ:
        pytest.fail("these tests need the playground: run them with `make python`", pytrace=False)
    admin = sdp.Client.login(os.environ["SDP_URL"], os.environ["SDP_USER"], os.environ["SDP_PASSWORD"])
    admin.deploy("erangel-ocean", "main").wait()
    admin.create_template("checkout", services=[ServiceSpec("eredar", "main"), ServiceSpec("illidan", "main")])
    secret = admin.create_token("qa", ["deploy"]).secret
    environment = {**os.environ, "SDP_SERVER": admin.url, "SDP_TOKEN": secret}
    return Playground(admin.with_token(secret), os.environ["SDP_GATEWAY"].rstrip("/"), environment)
