"""Reactions to operations of other plugins; errors are only logged."""

from __future__ import annotations

from pvcd import Context, Listener, Operation

from . import service
from .records import Note


async def forget(context: Context, operation: Operation) -> None:
    """Erase the note of a node that was made ready."""
    note = context.store.get(Note, operation.arguments["node"])
    if note is not None:
        await service.erase(context, note.node)


READY = Listener("notes-ready", ("node-ready",), forget)
