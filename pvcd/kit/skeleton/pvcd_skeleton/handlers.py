"""Follow changes of notes. Every node calls these functions, perhaps more than once for a change."""

from __future__ import annotations

from pvcd import Check, Context, Handlers, Upsert

from .records import Note, NoteReport

handlers = Handlers()


@handlers.on(Note)
async def read(context: Context, note: Note) -> None:
    """Report that this node has read its note."""
    if note.node != context.node:
        return
    report = context.store.get(NoteReport, note.node) or NoteReport(node=note.node, read="")
    if report.read != note.text:
        await context.store.write(Check(note), Upsert(report.changed(read=note.text)))
