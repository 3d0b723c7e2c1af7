"""The endpoints of frozen nodes."""

from __future__ import annotations

from pvcd import Context, Message, Routes

from . import service
from .params import NodeName, Reason
from .service import FreezeView

routes = Routes("/api/v1/freeze", tag="Frozen nodes")


@routes.get()
async def list_freezes(context: Context) -> list[FreezeView]:
    """All frozen nodes, sorted by name."""
    return service.list_freezes(context)


@routes.post("/{node}", operation="freeze-set")
async def freeze(context: Context, node: NodeName, reason: Reason) -> Message:
    """Freeze a node."""
    return await service.freeze(context, node, reason)


@routes.delete("/{node}", operation="freeze-unset")
async def thaw(context: Context, node: NodeName) -> Message:
    """Thaw a node."""
    return await service.thaw(context, node)
