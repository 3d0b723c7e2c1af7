"""What a node does when its note changes. It is called on every node, and may be called twice."""

from __future__ import annotations

from pvcd import Check, Context, Create, Handlers, Put

from .board import BOARD
from .records import Note, NoteReport

handlers = Handlers()


@handlers.on(Note)
async def read(context: Context, note: Note) -> None:
    """Show the note of this node and say that it was read, unless it said so already."""
    if note.node != context.node:
        return
    if await context[BOARD].shown() != note.text:
        await context[BOARD].show(note.text)
    report = context.store.get(NoteReport, note.node)
    if report is None:
        await context.store.write(Check(note), Create(NoteReport(node=note.node, read=note.text)))
    elif report.read != note.text:
        await context.store.write(Check(note), Put(report.changed(read=note.text)))


@handlers.gone(Note)
async def forget(context: Context, note: Note) -> None:
    """Show the note of this node no more, unless there is another one by now."""
    if note.node == context.node and context.store.get(Note, note.node) is None:
        await context[BOARD].show(None)
