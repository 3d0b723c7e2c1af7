"""What a node does when its note changes. It is called on every node, and may be called twice."""

from __future__ import annotations

from pvcd import Check, Context, Create, Handlers, OperationKind, Put

from .board import BOARD
from .records import Note, NoteReport

handlers = Handlers()
READ = OperationKind(
    "notes-read",
    "A node has read its note.",
    "node",
    {
        "node": {"type": "string", "description": "The node's name"},
        "text": {"type": "string", "description": "What it has read"},
    },
    ("post",),
)
"""What a node does by itself; without the phase `pre`, for nothing can keep it from reading."""


@handlers.on(Note)
async def read(context: Context, note: Note) -> None:
    """Show the note of this node and say that it was read, unless it said so already."""
    if note.node != context.node:
        return
    if await context[BOARD].shown() != note.text:
        await context[BOARD].show(note.text)
    report = context.store.get(NoteReport, note.node)
    if report is not None and report.read == note.text:
        return
    said = Put(report.changed(read=note.text)) if report else Create(NoteReport(node=note.node, read=note.text))
    await context.store.write(Check(note), said)
    await context.operations.notify(context, READ.name, {"node": note.node, "text": note.text})


@handlers.gone(Note)
async def forget(context: Context, note: Note) -> None:
    """Show the note of this node no more, unless there is another one by now."""
    if note.node == context.node and context.store.get(Note, note.node) is None:
        await context[BOARD].show(None)
