"""What a node does when it is frozen."""

from __future__ import annotations

from pvcd import Context, Create, Handlers, Put

from .records import Freeze, FreezeReport

handlers = Handlers()


@handlers.on(Freeze)
async def follow(context: Context, freeze: Freeze) -> None:
    """Say that this node knows."""
    if freeze.node != context.node:
        return
    report = context.store.get(FreezeReport, freeze.node)
    if report is None:
        await context.store.write(Create(FreezeReport(node=freeze.node, knows=freeze.reason)))
    elif report.knows != freeze.reason:
        await context.store.write(Put(report.changed(knows=freeze.reason)))
