"""The rules for notes: what may be asked, and what is then written."""

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
    """All notes, sorted by node, and whether each was read as it is."""
    notes = context.store.all(Note)
    return [NoteView(node=note.node, text=note.text, read=is_read(context, note)) for note in notes]


def is_read(context: Context, note: Note) -> bool:
    """Whether the node has read this very note."""
    report = context.store.get(NoteReport, note.node)
    return report is not None and report.read == note.text


async def write(context: Context, node: str, text: str) -> Message:
    """Write a node's note, over one that there is."""
    name = find_node(context, node).name
    await context.store.upsert(Note, name, text=text, task=None)
    return Message(message=f"Node {name} is told.")


@retried
async def erase(context: Context, node: str) -> Message:
    """Erase a node's note, and that it was read."""
    note, report = context.store.get(Note, node), context.store.get(NoteReport, node)
    if note is None:
        raise NotFound("note", node)
    await context.store.write(*(Delete(record) for record in (report, note) if record))
    return Message(message=f"Node {node} has no note any more.")


async def announce(context: Context, text: str) -> TaskView:
    """Let a worker write a note for each node that has none."""
    return _view(await tasks.submit(context, "skeleton", "all", {"text": text}))


async def find_task(context: Context, id: str) -> TaskView:
    """How far a task is."""
    try:
        return _view(await tasks.find(context, UUID(id)))
    except ValueError:
        raise Invalid(f"The id of a task is a UUID, not {id!r:.60}.") from None


def _view(task: tasks.Task) -> TaskView:
    return TaskView(id=task.id, state=task.state, sentence=task.sentence)
