"""Writes ``sdp/_sync`` from ``sdp/aio``: one source for both clients. With ``--check`` it only compares."""

from __future__ import annotations

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "python" / "sdp"

WORDS = [
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsync(Transport|Lines)\b", r"\1"),
    (r"\basync_pause\b", "pause"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r" for asyncio\b", ""),
    (r", whose methods are awaited", ""),
]


def synced(text: str) -> str:
    """The same module, waiting."""
    for pattern, to in WORDS:
        text = re.sub(pattern, to, text)
    return text


def main() -> None:
    stale = []
    for source in sorted((PACKAGE / "aio").glob("*.py")):
        text = synced(source.read_text(encoding="utf-8"))
        if source.name == "__init__.py":
            text = re.sub(
                r'""".*?"""',
                '"""The client that waits. Generated from sdp.aio: see tools/unasync.py."""',
                text,
                count=1,
                flags=re.S,
            )
        else:
            text = "# Generated from sdp.aio by tools/unasync.py. Do not edit.\n" + text
        target = PACKAGE / "_sync" / source.name
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        if "--check" in sys.argv:
            stale.append(str(target))
        else:
            target.write_text(text, encoding="utf-8")
    if stale:
        sys.exit(f"not current, run tools/unasync.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()
