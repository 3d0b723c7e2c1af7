"""The endpoints of frozen nodes."""

from __future__ import annotations

from pvcd import Context, Message, Routes

from . import service
from .params import NodeName, Question, Reason
from .service import FreezeView

routes = Routes("/api/v1/freeze", tag="Frozen nodes")


@routes.get()
async def list_freezes(context: Context) -> list[FreezeView]:
    """List all frozen nodes, sorted by name."""
    return service.list_freezes(context)


@routes.post("/{node}", operation="freeze-set")
async def freeze(context: Context, node: NodeName, reason: Reason) -> Message:
    """Freeze a node."""
    return await service.freeze(context, node, reason)


@routes.delete("/{node}", operation="freeze-unset")
async def thaw(context: Context, node: NodeName) -> Message:
    """Thaw a node."""
    return await service.thaw(context, node)


@routes.get("/{node}/answer")
async def ask(context: Context, node: NodeName, question: Question) -> Message:
    """Ask a node."""
    return await service.ask(context, node, question)
