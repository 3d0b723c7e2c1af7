"""The rules for frozen nodes."""

from __future__ import annotations

from pydantic import BaseModel

from pvcd import Context, Delete, Message, NotFound, Presence, retried
from pvcd_plugins.node.service import find as find_node

from .records import Freeze, FreezeReport


class FreezeView(BaseModel):
    """A frozen node as the API shows it."""

    node: str
    reason: str
    known: bool
    alive: bool
    changes: int


def list_freezes(context: Context) -> list[FreezeView]:
    """Return all frozen nodes, and whether each lives and knows the present reason."""
    return [_view(context, freeze) for freeze in context.store.all(Freeze)]


def _view(context: Context, freeze: Freeze) -> FreezeView:
    report = context.store.get(FreezeReport, freeze.node)
    return FreezeView(
        node=freeze.node,
        reason=freeze.reason,
        known=report is not None and report.knows == freeze.reason,
        alive=context.store.get(Presence, freeze.node) is not None,
        changes=freeze.changes,
    )


async def freeze(context: Context, name: str, reason: str) -> Message:
    """Freeze a node, or give another reason."""
    node = find_node(context, name)
    await context.store.upsert(Freeze, node.name, reason=reason)
    return Message(message=f"Node {node.name!r} frozen.")


@retried
async def thaw(context: Context, name: str) -> Message:
    """Let a node be changed again."""
    frozen = context.store.get(Freeze, name)
    if frozen is None:
        raise NotFound("frozen node", name)
    report = context.store.get(FreezeReport, name)
    await context.store.write(*map(Delete, [report, frozen] if report else [frozen]))
    return Message(message=f"Node {name!r} thawed.")


async def ask(context: Context, name: str, question: str) -> Message:
    """Ask the agent of a node."""
    node = find_node(context, name)
    return Message(message=await context.node_commands.ask(node.name, "freeze-ask", question=question))
