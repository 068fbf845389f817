"""The package itself."""

from __future__ import annotations

import subprocess
import sys

from sdp import _sync


def test_a_package_without_the_client_that_waits_says_how_it_is_made() -> None:
    script = f"import sys; sys.modules[{_sync.__name__!r}] = None; import sdp"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: sdp was built without sdp/_sync")
    assert "run `python3 sdp-py/tools/unasync.py`" in done.stderr
