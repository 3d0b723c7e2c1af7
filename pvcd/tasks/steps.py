"""What a task is made of: steps, which plugins declare, and what the functions of a step are given.

    async def make(run: Run) -> Outcome:
        if await there_is(run.task.subject):
            return Outcome("ok", "It is there already.")
        await run.intend(disk=run.task.subject)    # written before anything is done
        await create(run.task.subject)
        return Outcome("changed", "The disk was made.")

    async def remove(run: Run) -> None:
        await delete_if_there(run.journal["disk"])

    Step("provision", "disk", 50, "Make the disk", run=make, undo=remove)

The laws: look first, write the intent right before acting, and let an act fail where something stands that is not ours
(then `withdraw` it). `undo` is called for a step whose journal holds something or that changed something, also by
another process, also twice, also when the act never happened; of what the step did it knows only the journal. Whoever
is cancelled stops acting before it returns: it ends its programs and leaves no thread at work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import to_jsonable_python

from pvcd.declare.context import Context
from pvcd.declare.operations import OperationKind
from pvcd.tasks.records import Task


@dataclass(frozen=True)
class Outcome:
    """How a step ended: it was so already (`ok`), it was made so (`changed`), or it was not needed (`skipped`)."""

    state: Literal["ok", "changed", "skipped"]
    sentence: str = ""


class Run:
    """One step of one task at work. This one keeps to itself what it is told: that of a dry run, and of tests."""

    def __init__(
        self, context: Context, task: Task, memory: dict[str, Any], journal: Mapping[str, Any] | None = None
    ) -> None:
        self.context = context
        self._task = task
        self.memory = memory
        """What earlier steps left for later ones, in this process only: it is empty when a task is undone elsewhere."""
        self._journal = dict(journal or {})

    @property
    def task(self) -> Task:
        """The task as it is now."""
        return self._task

    @property
    def journal(self) -> Mapping[str, Any]:
        """The facts that this step has written down, as plain JSON values."""
        return self._journal

    @property
    def cancelled(self) -> bool:
        """Whether somebody wants the task to end; whoever awaits something is cancelled anyway."""
        return self.task.cancel

    async def intend(self, **facts: Any) -> None:
        """Write down, durably, what is about to be done; what is known already is kept."""
        await self._keep({**self._journal, **to_jsonable_python(facts)})

    async def withdraw(self, *names: str) -> None:
        """Take facts back: it was not done, for instance because something of another one stands there."""
        await self._keep({name: fact for name, fact in self._journal.items() if name not in names})

    async def log(self, text: str) -> None:
        """Add lines to the task's log."""

    async def progress(self, sentence: str) -> None:
        """Say how far the step is."""

    async def _keep(self, journal: dict[str, Any]) -> None:
        self._journal = journal


async def _nothing(run: Run) -> None:
    """Undo what changes nothing."""


async def _title_only(run: Run) -> str:
    """Say nothing beside the title."""
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
    """For a dry run: says what it would do, or raises what would stand in the way."""


def operation_of(kind: str) -> OperationKind:
    """The end of a task of a kind, as guards, listeners and hooks know it: `post` if it is done, `fail` if undone."""
    return OperationKind(
        name=f"task-{kind}",
        doc=f"A task of the kind {kind} has come to its end.",
        place="worker",
        phases=("post", "fail"),
        arguments={
            "task": {"type": "string", "format": "uuid", "description": "Its id"},
            "subject": {"type": "string", "description": "What it is about"},
            "values": {"type": "object", "description": "What it was asked with"},
            "leftovers": {
                "type": "array",
                "items": {"type": "string"},
                "description": "A sentence for each thing that could not be removed",
            },
        },
    )
