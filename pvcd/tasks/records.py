"""What the store knows of tasks: the task with its journal, who runs it, and what it is about.

Their size is bounded by what may be in them: see `plain`, `MAX_VALUES` and `MAX_JOURNALS`.
"""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from pvcd.errors import Invalid
from pvcd.process import ProcessIdentity
from pvcd.records import Name, Record

MAX_SENTENCE = 500
MAX_VALUES = MAX_JOURNALS = 128 * 1024
"""Bytes: of what a task was asked with, and of the journals of all its steps together."""

TaskState = Literal["pending", "running", "success", "failure", "cancelled"]
StepState = Literal["waiting", "running", "ok", "changed", "skipped", "failed", "undone"]


class StepRecord(BaseModel):
    """One step of a task. What its journal holds was written before the step acted on it."""

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
        """Whether there may be something to undo."""
        return self.state != "undone" and bool(self.journal or self.state == "changed")


class Task(Record, path="/tasks/{id}"):
    """Long work: what was asked, how far it is, and how it ended."""

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
    """Counts the claims: a worker whose number is an older one has lost the task."""
    sentence: str = ""
    steps: tuple[StepRecord, ...] = ()
    leftovers: tuple[str, ...] = ()
    """A sentence for each thing that could not be removed."""

    @property
    def is_over(self) -> bool:
        """Whether it has come to its end."""
        return self.state in ("success", "failure", "cancelled")

    @property
    def has_begun(self) -> bool:
        """Whether a step of it has begun."""
        return any(step.state != "waiting" for step in self.steps)

    @property
    def has_all_done(self) -> bool:
        """Whether every step of it has ended well."""
        return all(step.state in ("ok", "changed", "skipped") for step in self.steps)

    def step(self, name: str) -> StepRecord:
        """One step by name."""
        return next(step for step in self.steps if step.name == name)

    def with_step(self, name: str, **values: Any) -> Task:
        """A copy in which one step has other values."""
        steps = tuple(step.model_copy(update=values) if step.name == name else step for step in self.steps)
        return self.changed(steps=steps)


class Claim(Record, path="/task-claims/{id}", ephemeral=True):
    """A worker runs a task: the record goes with its ZooKeeper session."""

    id: UUID
    worker: str
    session: int
    process: ProcessIdentity


class TaskSubject(Record, path="/task-subjects/{kind}/{subject}"):
    """The one task of a kind that is about a subject; it goes with the end of the task."""

    kind: Name
    subject: Name
    task: UUID


def plain(text: str) -> str:
    """A sentence as records hold it: one line of printable characters, not too long."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= MAX_SENTENCE else f"{line[: MAX_SENTENCE - 4]} ..."


def refuse_too_large(what: str, values: object, limit: int) -> None:
    """Raise `Invalid` when values would take more than so many bytes."""
    size = len(to_json(values))
    if size > limit:
        raise Invalid(f"{what} would hold {size} bytes; {limit} are possible.")
