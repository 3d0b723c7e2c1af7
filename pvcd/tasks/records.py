"""The records of tasks: the task with its journals, the claim of its worker, and its subject.

Their size is bounded: see `plain`, `MAX_VALUES_BYTES` and `MAX_JOURNALS_BYTES`.
"""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from pvcd.errors import Invalid
from pvcd.process import ProcessIdentity
from pvcd.records import Name, Record

MAX_SENTENCE_CHARACTERS = 500
MAX_VALUES_BYTES = MAX_JOURNALS_BYTES = 128 * 1024
"""The most that the values of a task, and the journals of all its steps together, may take."""

TaskState = Literal["pending", "running", "success", "failure", "cancelled"]
StepState = Literal["waiting", "running", "ok", "changed", "skipped", "failed", "undone"]


class StepRecord(BaseModel):
    """One step of a task. A fact is in its journal before the step acts on it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    title: str
    state: StepState = "waiting"
    sentence: str = ""
    started: float | None = None
    ended: float | None = None
    journal: dict[str, Any] = Field(default_factory=dict)

    @property
    def may_have_acted(self) -> bool:
        """True if there may be something to undo."""
        return self.state != "undone" and bool(self.journal or self.state == "changed")


class Task(Record, path="/tasks/{id}"):
    """Long work: its values, its progress and its result."""

    id: UUID
    kind: Name
    subject: Name
    user: str | None = None
    values: dict[str, Any] = Field(default_factory=dict)
    state: TaskState = "pending"
    cancel: bool = False
    created: float
    started: float | None = None
    ended: float | None = None
    worker: str | None = None
    attempt: int = 0
    """Counts the claims: a worker with an older number has lost the task."""
    sentence: str = ""
    steps: tuple[StepRecord, ...] = ()
    leftovers: tuple[str, ...] = ()
    """A sentence for each thing that could not be removed."""

    @property
    def is_over(self) -> bool:
        """True if it has ended."""
        return self.state in ("success", "failure", "cancelled")

    @property
    def has_begun(self) -> bool:
        """True if one of its steps has begun."""
        return any(step.state != "waiting" for step in self.steps)

    @property
    def has_all_done(self) -> bool:
        """True if all of its steps have succeeded."""
        return all(step.state in ("ok", "changed", "skipped") for step in self.steps)

    def step(self, name: str) -> StepRecord:
        """Return one step by name."""
        return next(step for step in self.steps if step.name == name)

    def with_step(self, name: str, **values: Any) -> Task:
        """Return a copy in which one step has other values."""
        steps = tuple(step.model_copy(update=values) if step.name == name else step for step in self.steps)
        return self.changed(steps=steps)


class Claim(Record, path="/task-claims/{id}", ephemeral=True):
    """The claim of the worker that runs a task; it goes with the worker's ZooKeeper session."""

    id: UUID
    worker: str
    session: int
    process: ProcessIdentity


class TaskSecrets(Record, path="/task-secrets/{id}"):
    """The secret values of a task, which nothing but its steps gets; the record is removed at the end of the task."""

    id: UUID
    values: dict[str, Any] = Field(default_factory=dict, repr=False)


class TaskSubject(Record, path="/task-subjects/{kind}/{subject}"):
    """The one task of a kind that has a subject; the record is removed at the end of the task."""

    kind: Name
    subject: Name
    task: UUID


def plain(text: str) -> str:
    """Return a sentence as records hold it: one line of printable characters, not too long."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= MAX_SENTENCE_CHARACTERS else f"{line[: MAX_SENTENCE_CHARACTERS - 4]} ..."


def refuse_too_large(what: str, values: object, limit: int) -> None:
    """Raise `Invalid` for values that take more than so many bytes."""
    size = len(to_json(values))
    if size > limit:
        raise Invalid(f"{what} must have at most {limit} bytes; got {size} bytes.")
