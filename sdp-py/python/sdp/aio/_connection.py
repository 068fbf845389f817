"""What the objects of one client share."""

from __future__ import annotations

from typing import Any, AsyncIterator, Dict, Mapping, Optional

from .. import _sdp
from .._transport import AsyncTransport


class Connection:
    """A client's connections."""

    def __init__(self, native: _sdp.Client) -> None:
        self.native = native
        self.transport = AsyncTransport(native)

    async def pages(self, op: str, filter: Mapping[str, Any], more: str) -> AsyncIterator[Dict[str, Any]]:
        """Everything that a filter lets through; ``more`` is what of it says where to go on."""
        wanted: Optional[Dict[str, Any]] = dict(filter)
        while wanted is not None:
            page = await self.transport.call(op, wanted)
            for item in page["items"]:
                yield item
            following = page.get("next")
            # The audit's places are numbers.
            place = int(following) if following and op == "audit" else following
            wanted = {**wanted, more: place} if following else None
