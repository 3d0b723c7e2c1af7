"""Follow changes of notes. Every node calls these functions, perhaps more than once for a change."""

from __future__ import annotations

from pvcd import Check, Context, Handlers, OperationKind, Upsert

from .board import BOARD
from .records import Note, NoteReport

handlers = Handlers()
READ = OperationKind(
    "notes-read",
    "A node has read its note",
    "node",
    {
        "node": {"type": "string", "description": "The node's name"},
        "text": {"type": "string", "description": "The text of the note"},
    },
    ("post",),
)
"""What a node does by itself; there is no phase `pre`, as no site hook can prevent it."""


@handlers.on(Note)
async def read(context: Context, note: Note) -> None:
    """Show the note of this node, and report that it was read."""
    if note.node != context.node:
        return
    if await context[BOARD].shown() != note.text:
        await context[BOARD].show(note.text)
    report = context.store.get(NoteReport, note.node) or NoteReport(node=note.node, read="")
    if report.read == note.text:
        return
    await context.store.write(Check(note), Upsert(report.changed(read=note.text)))
    await context.operations.notify(context, READ.name, {"node": note.node, "text": note.text})


@handlers.gone(Note)
async def forget(context: Context, note: Note) -> None:
    """Stop showing the note of this node, unless there is another one by now."""
    if note.node == context.node and context.store.get(Note, note.node) is None:
        await context[BOARD].show(None)
