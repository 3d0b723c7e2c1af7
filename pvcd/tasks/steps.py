"""Steps: the parts of tasks, which plugins declare; and the run that their functions are given.

    async def make(run: Run) -> Outcome:
        if await there_is(run.task.subject):
            return Outcome("ok", "The disk exists already.")
        await run.intend(disk=run.task.subject)    # durable before anything is done
        await create(run.task.subject)
        return Outcome("changed", "Disk created.")

    async def remove(run: Run) -> None:
        await delete_if_there(run.journal["disk"])

    Step("provision", "disk", 50, "Create the disk", run=make, undo=remove)

A step looks first, stores its intent right before it acts, and fails where a thing exists that is not ours (then it
calls `withdraw`). `undo` is called for a step that has a journal or changed something, also in another process, also
twice, also if the act never happened; of the step it knows only the journal. A cancelled step stops acting before it
returns: it ends its programs and leaves no thread running.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import to_jsonable_python

from pvcd.declare.context import Context
from pvcd.declare.operations import OperationKind
from pvcd.tasks.records import Task, TaskSecrets


@dataclass(frozen=True)
class Outcome:
    """The result of a step: `ok` (nothing to do), `changed`, or `skipped` (not needed)."""

    state: Literal["ok", "changed", "skipped"]
    sentence: str = ""


class Run:
    """One run of a step. This class stores nothing: it is for dry runs and tests."""

    def __init__(
        self,
        context: Context,
        task: Task,
        memory: dict[str, Any],
        journal: Mapping[str, Any] | None = None,
        secrets: Mapping[str, Any] | None = None,
    ) -> None:
        self.context = context
        self._task = task
        self.memory = memory
        """Values from earlier steps for later ones, in this process only; empty if another process undoes the task."""
        self._journal = dict(journal or {})
        self._secrets = secrets

    async def secrets(self) -> Mapping[str, Any]:
        """Return the secret values of the task."""
        if self._secrets is None:
            record = await self.context.store.read(TaskSecrets, self.task.id)
            self._secrets = record.values if record else {}
        return self._secrets

    @property
    def task(self) -> Task:
        """The task as it is now."""
        return self._task

    @property
    def journal(self) -> Mapping[str, Any]:
        """The facts that this step has stored, as plain JSON values."""
        return self._journal

    @property
    def cancelled(self) -> bool:
        """True if the task is to end; a step that awaits something is cancelled anyway."""
        return self.task.cancel

    async def intend(self, **facts: Any) -> None:
        """Store facts about what is about to be done, beside those that are stored already."""
        await self._keep({**self._journal, **to_jsonable_python(facts)})

    async def withdraw(self, *names: str) -> None:
        """Remove facts about what was not done, for instance because a thing that is not ours exists there."""
        await self._keep({name: fact for name, fact in self._journal.items() if name not in names})

    async def log(self, text: str) -> None:
        """Add lines to the task's log."""

    async def progress(self, sentence: str) -> None:
        """Report the progress of the step."""

    async def _keep(self, journal: dict[str, Any]) -> None:
        self._journal = journal


async def _nothing(run: Run) -> None:
    """Undo a step that changes nothing."""


async def _title_only(run: Run) -> str:
    """Report nothing beside the title."""
    return ""


@dataclass(frozen=True)
class Step:
    """One part of all tasks of a kind, at its place in their order."""

    kind: str
    name: str
    order: int
    title: str
    run: Callable[[Run], Awaitable[Outcome]]
    undo: Callable[[Run], Awaitable[None]] = _nothing
    check: Callable[[Run], Awaitable[str]] = _title_only
    """For a dry run: returns what the step would do, or raises what would prevent it."""


def operation_of(kind: str) -> OperationKind:
    """Return the operation that the end of a task of a kind is: `post` if it has succeeded, `fail` if it was undone."""
    return OperationKind(
        name=f"task-{kind}",
        doc=f"A task of the kind {kind} has ended.",
        place="worker",
        phases=("post", "fail"),
        arguments={
            "task": {"type": "string", "format": "uuid", "description": "Its id"},
            "subject": {"type": "string", "description": "Its subject"},
            "values": {"type": "object", "description": "Its values"},
            "leftovers": {
                "type": "array",
                "items": {"type": "string"},
                "description": "A sentence for each thing that could not be removed",
            },
        },
    )
