"""What follows the operations of others."""

from __future__ import annotations

from pvcd import Context, Listener, Operation

from .records import Freeze


async def note(context: Context, operation: Operation) -> None:
    """Count an operation on a frozen node that another plugin did."""
    freeze = context.store.get(Freeze, operation.arguments["node"])
    if freeze is not None:
        await context.store.upsert(Freeze, freeze.node, reason=freeze.reason, changes=freeze.changes + 1)


COUNTED = Listener("frozen-nodes", ("node-primary", "node-secondary"), note)
