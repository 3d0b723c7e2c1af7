"""The step of a task: look first, record the intent, then act."""

from __future__ import annotations

from pvcd import Create, Delete, Outcome, Run, Step
from pvcd_plugins.node.service import Node

from .records import Note


async def write(run: Run) -> Outcome:
    """Write a note for each node without one."""
    store = run.context.store
    nodes = [node.name for node in store.all(Node) if store.get(Note, node.name) is None]
    if not nodes:
        return Outcome("ok", "Every node has a note.")
    await run.intend(nodes=nodes)
    text = run.task.values["text"]
    await store.write(*(Create(Note(node=node, text=text, task=run.task.id)) for node in nodes))
    return Outcome("changed", f"Notes written for nodes: {', '.join(nodes)}.")


async def erase(run: Run) -> None:
    """Erase the notes of this task that are unchanged; may be called before they were written."""
    for node in run.journal["nodes"]:
        note = await run.context.store.read(Note, node)
        if note and note.task == run.task.id:
            await run.context.store.write(Delete(note))


async def check(run: Run) -> str:
    """Return what the step would do."""
    return "Would write a note for each node without one."


WRITE = Step("notes", "notes", 10, "Write a note for each node", write, undo=erase, check=check)
