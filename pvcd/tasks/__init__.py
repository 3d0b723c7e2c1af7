"""Tasks: long work with an id, made of steps that plugins declare, run by task workers, finished or undone as a whole.

    task = await tasks.submit(context, "provision", "web1", {"profile": "web"})
    ...
    (await tasks.find(context, task.id)).state

The record of a task is the truth: each step writes its intent and its result into it. Redis only wakes the task
workers and keeps the logs; every few seconds each worker looks in the store for tasks that no worker runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from pydantic_core import to_jsonable_python

from pvcd.declare.context import Context
from pvcd.errors import Conflict, Exists, NotFound
from pvcd.store import Create, Put, retried
from pvcd.tasks.following import follow
from pvcd.tasks.logs import TASK_LOGS, LogLine
from pvcd.tasks.queue import TASK_QUEUE
from pvcd.tasks.records import MAX_VALUES_BYTES, StepRecord, Task, TaskSecrets, TaskSubject, refuse_too_large
from pvcd.tasks.release import release
from pvcd.tasks.steps import Outcome, Run, Step

__all__ = ["TASK_LOGS", "LogLine", "Outcome", "Run", "Step", "StepRecord", "Task", "follow"]


@dataclass(frozen=True)
class Planned:
    """The effect that a step of a task would have."""

    name: str
    title: str
    sentence: str


async def submit(
    context: Context, kind: str, subject: str, values: dict[str, Any], secrets: dict[str, Any] | None = None
) -> Task:
    """Create a task of a kind and return it as soon as it is durable; a task worker runs its steps.

    The `secrets` are values that only the steps get (`Run.secrets`), and only until the task ends.

    Raises `Conflict` if another task of this kind has the same subject and has not ended.
    """
    task = _new(context, kind, subject, values)
    changes = [Create(task), Create(TaskSubject(kind=kind, subject=subject, task=task.id))]
    if secrets:
        refuse_too_large("secrets of a task", secrets, MAX_VALUES_BYTES)
        changes.append(Create(TaskSecrets(id=task.id, values=to_jsonable_python(secrets))))
    try:
        await context.store.write(*changes)
    except Exists as error:
        other = await context.store.read(TaskSubject, kind, subject)
        name = f"task {other.task}" if other else "another task"
        raise Conflict(
            f"Cannot start {kind} for {subject!r}: {name} is in progress.", code="task-in-progress"
        ) from error
    context[TASK_QUEUE].wake(task.id)
    return await find(context, task.id)


async def check(
    context: Context,
    kind: str,
    subject: str,
    values: dict[str, Any],
    memory: dict[str, Any] | None = None,
    secrets: dict[str, Any] | None = None,
) -> list[Planned]:
    """Return what each step of a task would do; nothing is written. Raises what would stand in its way.

    The caller's `memory`, if given, is that of the steps.
    """
    task = _new(context, kind, subject, values)
    memory = {} if memory is None else memory
    return [
        Planned(step.name, step.title, await step.check(Run(context, task, memory, secrets=secrets)))
        for step in _steps(context, kind)
    ]


async def find(context: Context, id: UUID) -> Task:
    """Return a task, or raise `NotFound`."""
    task = context.store.get(Task, id) or await context.store.read(Task, id)
    if task is None:
        raise NotFound("task", id)
    return task


@retried
async def cancel(context: Context, id: UUID) -> Task:
    """End a task: at once if it waits, else its worker undoes it. Raises `Conflict` if it has ended."""
    task = await context.store.read(Task, id)
    if task is None:
        raise NotFound("task", id)
    if task.is_over:
        raise Conflict(f"Cannot cancel task {id}: it has ended with {task.state}.", code="task-over")
    if task.cancel:
        return task
    cancelled = task.changed(cancel=True)
    if task.state == "running":
        await context.store.write(Put(cancelled))
        return await find(context, id)
    cancelled = cancelled.changed(state="cancelled", ended=context.clock.time(), sentence="Cancelled.")
    await context.store.write(Put(cancelled), *await release(context.store, task))
    return await find(context, id)


def _steps(context: Context, kind: str) -> list[Step]:
    steps = [step for step in context.declared(Step) if step.kind == kind]
    if not steps:
        raise LookupError(f"no plugin declares steps of the kind {kind!r}")
    return steps


def _new(context: Context, kind: str, subject: str, values: dict[str, Any]) -> Task:
    refuse_too_large("values of a task", values, MAX_VALUES_BYTES)
    return Task(
        id=uuid4(),
        kind=kind,
        subject=subject,
        user=context.user,
        values=to_jsonable_python(values),
        created=context.clock.time(),
        steps=tuple(StepRecord(name=step.name, title=step.title) for step in _steps(context, kind)),
    )
