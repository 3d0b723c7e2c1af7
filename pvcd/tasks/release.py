"""The end of a task: its subject is free for another one, and its secrets are forgotten."""

from __future__ import annotations

from pvcd.store import Change, Delete, Store
from pvcd.tasks.records import Task, TaskSecrets, TaskSubject


async def release(store: Store, task: Task) -> list[Change]:
    """Return the changes that go with the end of a task."""
    subject = await store.read(TaskSubject, task.kind, task.subject)
    secrets = await store.read(TaskSecrets, task.id)
    return [
        *([Delete(subject)] if subject and subject.task == task.id else []),
        *([Delete(secrets)] if secrets else []),
    ]
