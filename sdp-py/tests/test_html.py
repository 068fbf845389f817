"""What notebooks show."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

import sdp
from sdp import _convert
from sdp.model import Failure, Listing, Repo, Route, RouteOrigin, RouteTable


def test_objects_are_tables_and_text_is_escaped(client: sdp.Client) -> None:
    with client.sandbox() as sandbox:
        deployment = sandbox.deploy("eredar", "main").wait()
        shown = deployment._repr_html_()
        assert f'<a href="{deployment.url}">' in shown
        assert "<caption>Deployment</caption>" in shown
        assert sandbox.name in sandbox._repr_html_()
        assert "<th>service</th>" in sandbox.routes()._repr_html_()
    assert "&lt;script&gt;" in Failure(code="internal", reason="<script>")._repr_html_()
    table = RouteTable([Route("eredar", "<b>", RouteOrigin.CUSTOM, "x")])
    assert "<b>" not in table._repr_html_()
    listing = Listing([Repo("eredar", ["micro-1"]), Repo("illidan")])
    assert "<th>agents</th>" in listing._repr_html_()
    assert Listing()._repr_html_() == "<em>none</em>"


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.25Z", "2026-01-02T03:04:05.123456789Z"])
def test_times_are_read_whatever_their_fraction(text: str) -> None:
    read = _convert.read_time(text)
    assert read.tzinfo is timezone.utc
    assert read.replace(microsecond=0) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("15m", 900), ("2h", 7200), ("7d", 604800)]
)
def test_durations_are_read_and_written(text: str, seconds: float) -> None:
    duration = timedelta(seconds=seconds)
    assert _convert.read_duration(text) == duration
    assert _convert.read_duration(_convert.write_duration(duration)) == duration
