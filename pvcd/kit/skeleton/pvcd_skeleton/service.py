"""The rules for notes: what is allowed, and what is written."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel

from pvcd import Context, Delete, Invalid, Message, NotFound, retried, tasks
from pvcd_plugins.node.service import find as find_node

from .records import Note, NoteReport


class NoteView(BaseModel):
    """A note as the API shows it."""

    node: str
    text: str
    read: bool


class TaskView(BaseModel):
    """A task that writes notes."""

    id: UUID
    state: str
    sentence: str


def list_notes(context: Context) -> list[NoteView]:
    """Return all notes, sorted by node, and whether each was read."""
    notes = context.store.all(Note)
    return [NoteView(node=note.node, text=note.text, read=is_read(context, note)) for note in notes]


def is_read(context: Context, note: Note) -> bool:
    """Return whether the node has read this text."""
    report = context.store.get(NoteReport, note.node)
    return report is not None and report.read == note.text


async def write(context: Context, node: str, text: str) -> Message:
    """Write a node's note, or replace it."""
    name = find_node(context, node).name
    await context.store.upsert(Note, name, text=text, task=None)
    return Message(message=f"Note written for node {name!r}.")


@retried
async def erase(context: Context, node: str) -> Message:
    """Erase a node's note and the report about it."""
    note, report = context.store.get(Note, node), context.store.get(NoteReport, node)
    if note is None:
        raise NotFound("note", node)
    await context.store.write(*(Delete(record) for record in (report, note) if record))
    return Message(message=f"Note of node {node!r} erased.")


async def announce(context: Context, text: str) -> TaskView:
    """Submit a task that writes a note for each node without one."""
    return _view(await tasks.submit(context, "skeleton", "all", {"text": text}))


async def find_task(context: Context, id: str) -> TaskView:
    """Show the state of a task."""
    try:
        return _view(await tasks.find(context, UUID(id)))
    except ValueError:
        raise Invalid(f"task must be a UUID; got {id!r:.60}.") from None


def _view(task: tasks.Task) -> TaskView:
    return TaskView(id=task.id, state=task.state, sentence=task.sentence)
