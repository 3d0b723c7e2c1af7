"""What is refused while a note holds its node."""

from __future__ import annotations

from pvcd import Conflict, Context, Guard, Operation

from .records import Note


async def check(context: Context, operation: Operation) -> None:
    """Refuse what would change a node that is held."""
    note = context.store.get(Note, operation.arguments["node"])
    if note is not None and note.hold:
        raise Conflict(f"Node {note.node} is held: {note.text}", code="node-held")


HELD = Guard("notes-held", ("node-flush", "node-ready"), check)
