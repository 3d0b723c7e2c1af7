"""The operations that are refused while a note holds its node."""

from __future__ import annotations

from pvcd import Conflict, Context, Guard, Operation

from .records import Note


async def check(context: Context, operation: Operation) -> None:
    """Refuse to change a held node."""
    note = context.store.get(Note, operation.arguments["node"])
    if note is not None and note.hold:
        raise Conflict(f"Cannot change node {note.node!r}: held by its note {note.text!r}.", code="node-held")


HELD = Guard("notes-held", ("node-flush", "node-ready"), check)
