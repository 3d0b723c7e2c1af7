"""The endpoints."""

from __future__ import annotations

from pvcd import Context, Message, Routes

from . import service
from .params import Hold, NodeName, TaskId, Text
from .service import NoteView, TaskView

routes = Routes("/api/v1/notes", tag="Notes")


@routes.get()
async def list_notes(context: Context) -> list[NoteView]:
    """List all notes, sorted by node."""
    return service.list_notes(context)


@routes.post("/{node}", operation="notes-write")
async def write(context: Context, node: NodeName, text: Text, hold: Hold = False) -> Message:
    """Write a note for a node."""
    return await service.write(context, node, text, hold)


@routes.delete("/{node}", operation="notes-erase")
async def erase(context: Context, node: NodeName) -> Message:
    """Erase the note of a node."""
    return await service.erase(context, node)


@routes.post(operation="notes-announce")
async def announce(context: Context, text: Text) -> TaskView:
    """Start a task that writes a note for each node without one; the reply has its id."""
    return await service.announce(context, text)


@routes.get("/task/{task}")
async def get_task(context: Context, task: TaskId) -> TaskView:
    """Show the state of a task."""
    return await service.find_task(context, task)
