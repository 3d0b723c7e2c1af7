"""The endpoints."""

from __future__ import annotations

from pvcd import Context, Message, Routes

from . import service
from .params import NodeName, TaskId, Text
from .service import NoteView, TaskView

routes = Routes("/api/v1/skeleton", tag="Notes")


@routes.get()
async def list_notes(context: Context) -> list[NoteView]:
    """List all notes, sorted by node."""
    return service.list_notes(context)


@routes.post("/{node}", operation="skeleton-write")
async def write(context: Context, node: NodeName, text: Text) -> Message:
    """Write a note for a node."""
    return await service.write(context, node, text)


@routes.delete("/{node}", operation="skeleton-erase")
async def erase(context: Context, node: NodeName) -> Message:
    """Erase the note of a node."""
    return await service.erase(context, node)


@routes.post(operation="skeleton-announce")
async def announce(context: Context, text: Text) -> TaskView:
    """Start a task that writes a note for each node without one; the reply has its id."""
    return await service.announce(context, text)


@routes.get("/task/{task}")
async def get_task(context: Context, task: TaskId) -> TaskView:
    """Show the state of a task."""
    return await service.find_task(context, task)
