"""What a node does when it is frozen."""

from __future__ import annotations

from pvcd import Context, Handlers, Requeue

from .records import Freeze, FreezeReport

LOOK_SECONDS = 60.0
handlers = Handlers()


@handlers.on(Freeze)
async def follow(context: Context, freeze: Freeze) -> Requeue | None:
    """Report that this node knows, and look again later."""
    if freeze.node != context.node:
        return None
    await context.store.upsert(FreezeReport, freeze.node, knows=freeze.reason)
    return Requeue(LOOK_SECONDS)


@handlers.node_command("freeze-ask")
async def ask(context: Context, question: str) -> str:
    """Answer a question to this node."""
    freeze = context.store.get(Freeze, context.node)
    return f"{question} {freeze.reason if freeze else 'not frozen'}"
