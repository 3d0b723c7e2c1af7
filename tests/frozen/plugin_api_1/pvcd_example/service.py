"""The rules for frozen nodes."""

from __future__ import annotations

from pydantic import BaseModel

from pvcd import Context, Create, Delete, Message, NotFound, Put, retried
from pvcd_plugins.node.service import find as find_node

from .records import Freeze, FreezeReport


class FreezeView(BaseModel):
    """A frozen node as the API shows it."""

    node: str
    reason: str
    known: bool


def list_freezes(context: Context) -> list[FreezeView]:
    """All frozen nodes, and whether each knows the present reason."""
    return [
        FreezeView(node=freeze.node, reason=freeze.reason, known=_knows(context, freeze))
        for freeze in context.store.all(Freeze)
    ]


def _knows(context: Context, freeze: Freeze) -> bool:
    report = context.store.get(FreezeReport, freeze.node)
    return report is not None and report.knows == freeze.reason


@retried
async def freeze(context: Context, name: str, reason: str) -> Message:
    """Freeze a node, or say anew why."""
    node = find_node(context, name)
    old = context.store.get(Freeze, node.name)
    if old is None:
        await context.store.write(Create(Freeze(node=node.name, reason=reason)))
    else:
        await context.store.write(Put(old.changed(reason=reason)))
    return Message(message=f"Node {node.name} is frozen.")


@retried
async def thaw(context: Context, name: str) -> Message:
    """Let a node be changed again."""
    frozen = context.store.get(Freeze, name)
    if frozen is None:
        raise NotFound("frozen node", name)
    report = context.store.get(FreezeReport, name)
    await context.store.write(*map(Delete, [report, frozen] if report else [frozen]))
    return Message(message=f"Node {name} is thawed.")
