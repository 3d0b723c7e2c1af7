"""The operations that are refused while a node is frozen."""

from __future__ import annotations

from pvcd import Conflict, Context, Guard, Operation

from .records import Freeze


async def check(context: Context, operation: Operation) -> None:
    """Refuse what would change a frozen node."""
    freeze = context.store.get(Freeze, operation.arguments["node"])
    if freeze is not None:
        raise Conflict(f"Cannot change node {freeze.node!r}: frozen ({freeze.reason}).", code="node-frozen")


FROZEN = Guard("frozen-nodes", ("node-flush", "node-ready"), check)
