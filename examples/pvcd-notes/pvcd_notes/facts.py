"""A fact that a node reports with each keepalive."""

from __future__ import annotations

from pvcd import Context, NodeFact

from .board import BOARD


async def shown(context: Context) -> str | None:
    """Return the text that the node shows."""
    return await context[BOARD].shown()


SHOWN = NodeFact("notes", shown)
