"""What a node does when its note changes. It is called on every node, and may be called twice."""

from __future__ import annotations

from pvcd import Check, Context, Create, Handlers, Put

from .records import Note, NoteReport

handlers = Handlers()


@handlers.on(Note)
async def read(context: Context, note: Note) -> None:
    """Say that this node has read its note, unless it said so already."""
    if note.node != context.node:
        return
    report = context.store.get(NoteReport, note.node)
    if report is None:
        await context.store.write(Check(note), Create(NoteReport(node=note.node, read=note.text)))
    elif report.read != note.text:
        await context.store.write(Check(note), Put(report.changed(read=note.text)))
