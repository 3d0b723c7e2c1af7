"""What a node says of itself at each keepalive."""

from __future__ import annotations

from pvcd import Context, NodeFact

from .board import BOARD


async def shown(context: Context) -> str | None:
    """What the node shows."""
    return await context[BOARD].shown()


SHOWN = NodeFact("notes", shown)
