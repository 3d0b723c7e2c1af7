"""What follows an operation of others; an error here is only logged."""

from __future__ import annotations

from pvcd import Context, Listener, Operation

from . import service
from .records import Note


async def forget(context: Context, operation: Operation) -> None:
    """A node that is made ready needs no note any more."""
    note = context.store.get(Note, operation.arguments["node"])
    if note is not None:
        await service.erase(context, note.node)


READY = Listener("notes-ready", ("node-ready",), forget)
