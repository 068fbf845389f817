"""Makes ``sdp/_sync`` from ``sdp/aio``: one source for both clients. It is run before the package is built."""

from __future__ import annotations

import re
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
    (r"\n\nIt is the same as ``sdp\.Client``[^.]*\.\n", ""),
]


def synced(text: str) -> str:
    """The same module, waiting."""
    for pattern, to in WORDS:
        text = re.sub(pattern, to, text)
    return "# Made from sdp.aio by tools/unasync.py.\n" + text


def main() -> None:
    sources = {source.name: source for source in (PACKAGE / "aio").glob("*.py")}
    made = PACKAGE / "_sync"
    made.mkdir(exist_ok=True)
    for old in made.glob("*.py"):
        if old.name not in sources:
            old.unlink()
    for name, source in sources.items():
        (made / name).write_text(synced(source.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
