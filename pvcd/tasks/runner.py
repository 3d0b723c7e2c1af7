"""TaskRunner: runs the steps of a claimed task in order or, when it must end early, undoes them in reverse order.

Each write of the task carries the version that was read and a check of the claim, and each claim counts the task's
`attempt` up: a worker that was paused and lost its claim can write nothing more. The store cannot refuse its acts
outside; that is why a step stores its intent right before it acts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from pvcd.declare.context import Context
from pvcd.errors import Changed, Failed, PvcdError, StoreUnavailable
from pvcd.store import Change, Check, Delete, Put
from pvcd.tasks.logs import TASK_LOGS
from pvcd.tasks.records import MAX_JOURNALS_BYTES, Claim, StepRecord, Task, plain, refuse_too_large
from pvcd.tasks.release import release
from pvcd.tasks.steps import Outcome, Run, Step, operation_of

log = logging.getLogger(__name__)
PAUSE_SECONDS = 1.0
UNDO_TRIES = 3
UNDO_SECONDS = 300.0
UNDO_RETRY_SECONDS = 10.0
"""An undo that fails after this time is not tried again: it has waited long enough itself."""
PROGRESS_SECONDS = 1.0
MAX_ATTEMPTS = 5
"""Claims of one task after which nothing more is undone: its worker has died in each of them."""


class ClaimLostError(Exception):
    """This worker has lost the task: write and do nothing more for it."""


class Trouble(NamedTuple):
    """The reason why a task is undone, and its state afterwards."""

    state: Literal["failure", "cancelled"]
    sentence: str


CANCELLED = Trouble("cancelled", "Cancelled.")
STOPPED = Trouble("failure", "The task worker was stopped.")


class TaskRunner:
    """Runs one task. If `run` is cancelled, nothing is undone here: the next worker does that."""

    def __init__(self, context: Context, task: Task, claim: Claim) -> None:
        self.context = context
        self._task = task
        self._claim = claim
        self._attempt = task.attempt
        self._steps = {step.name: step for step in context.declared(Step) if step.kind == task.kind}
        self._interruption = CANCELLED if task.cancel else None
        self._acting: asyncio.Future[Outcome] | None = None

    @property
    def task(self) -> Task:
        """The task as it is now."""
        self._task = self.context.store.get(Task, self._claim.id) or self._task
        return self._task

    def interrupt(self, why: Trouble) -> None:
        """Cancel the running step, once, and then undo the task. An undo that runs goes on."""
        if self._interruption is None:
            self._interruption = why
            if self._acting:
                self._acting.cancel()

    async def run(self) -> None:
        """Run or undo the task until it ends."""
        trouble = await self._given_up() if self.task.has_begun else await self._do()
        if trouble is None and not await self._succeed():
            trouble = CANCELLED
        if trouble:
            await self._undo(trouble)
        await self._notify(trouble)

    async def _notify(self, trouble: Trouble | None) -> None:
        task = self.task
        arguments = {"task": task.id, "subject": task.subject, "values": task.values, "leftovers": task.leftovers}
        failure = Failed(trouble.sentence, code=f"task-{trouble.state}") if trouble else None
        context = self.context.derive(user=task.user)
        await context.operations.notify(context, operation_of(task.kind).name, arguments, failure)

    # Forwards

    async def _do(self) -> Trouble | None:
        """Run all steps in order; return why the task is to be undone, or None."""
        memory: dict[str, Any] = {}
        for record in self.task.steps:
            if self._interruption:
                return self._interruption
            await self.keep_step(record, record.title, state="running", started=self._now())
            outcome = await self._act(record, RecordedRun(self, record, memory))
            if _is_abandoned():
                raise asyncio.CancelledError
            if isinstance(outcome, Trouble):
                await self._keep_end(record, "failed", outcome.sentence)
                cancelled = outcome.state == "cancelled"
                return outcome if cancelled else outcome._replace(sentence=f"{record.title}: {outcome.sentence}")
            await self._keep_end(record, outcome.state, outcome.sentence)
        return None

    async def _act(self, record: StepRecord, run: Run) -> Outcome | Trouble:
        """Run a step; return its outcome, or why the task is to be undone."""
        try:
            self._acting = asyncio.ensure_future(self._run_step(record, run))
            if self._interruption:
                self._acting.cancel()
            return await self._acting
        except ClaimLostError:
            raise
        except asyncio.CancelledError:
            return self._interruption or Trouble("failure", "The step cancelled itself.")
        except Exception as error:
            sentence = _sentence_of(error, f"step {record.name!r} of task {self.task.id}")
            return self._interruption or Trouble("failure", sentence)
        finally:
            self._acting = None

    async def _run_step(self, record: StepRecord, run: Run) -> Outcome:
        return await self._step(record).run(run)

    async def _succeed(self) -> bool:
        """End the task with success, and return True, unless it was cancelled."""
        await self._write(lambda task: None if task.cancel else self._ended(task, "success", "Done."))
        return self.task.is_over

    # Backwards

    async def _given_up(self) -> Trouble | None:
        """Return why a task that another worker began is to be undone, or None if all of its steps have succeeded."""
        if self.task.has_all_done:
            return None
        last = [step for step in self.task.steps if step.state != "waiting"][-1]
        if last.state == "running":
            await self._keep_end(last, "failed", "The task worker died or lost ZooKeeper.")
        if self.task.cancel:
            return CANCELLED
        last = self.task.step(last.name)
        if last.state == "failed":
            return Trouble("failure", f"{last.title}: {last.sentence}")
        return Trouble("failure", f"The task worker died or lost ZooKeeper after the step: {last.title}.")

    async def _undo(self, trouble: Trouble) -> None:
        """Undo, last first, every step that may have acted, and end the task."""
        await self._write(lambda task: task.changed(leftovers=(), sentence=plain(f"Undoing. {trouble.sentence}")))
        for record in reversed(self.task.steps):
            if record.may_have_acted:
                await self._undo_step(record)
        await self.log(f"Ended: {trouble.state}. {trouble.sentence}")
        await self._write(lambda task: self._ended(task, trouble.state, trouble.sentence))

    async def _undo_step(self, record: StepRecord) -> None:
        sentence = "not undone: the task worker died in every attempt."
        end = self.context.clock.monotonic() + UNDO_RETRY_SECONDS
        for number in range(UNDO_TRIES if self._attempt <= MAX_ATTEMPTS else 0):
            if number and self.context.clock.monotonic() >= end:
                break
            if number:
                await self.context.clock.sleep(PAUSE_SECONDS)
            try:
                async with asyncio.timeout(UNDO_SECONDS):
                    await self._step(record).undo(RecordedRun(self, record, {}))
            except ClaimLostError:
                raise
            except Exception as error:
                sentence = _sentence_of(error, f"undoing step {record.name!r} of task {self.task.id}")
            else:
                state = "failed" if record.state == "failed" else "undone"
                return await self._keep_end(record, state, record.sentence)
        leftover = plain(f"{record.title}: {sentence}")
        await self.log(f"Left over: {leftover}")
        return await self._write(lambda task: task.changed(leftovers=(*task.leftovers, leftover)))

    # Writing

    async def log(self, text: str) -> None:
        """Add lines to the task's log."""
        await self.context[TASK_LOGS].append(self._claim.id, text.splitlines())

    async def keep_step(self, record: StepRecord, whole: str = "", /, **values: Any) -> None:
        """Store other values of a step, and a sentence about the whole task."""

        def change(task: Task) -> Task:
            task = task.with_step(record.name, **values)
            return task.changed(sentence=plain(whole)) if whole else task

        await self._write(change)

    async def _keep_end(self, record: StepRecord, state: str, sentence: str) -> None:
        await self.log(f"{record.title}: {state}. {sentence}".rstrip())
        await self.keep_step(record, state=state, sentence=plain(sentence), ended=self._now())

    async def _write(self, change: Callable[[Task], Task | None]) -> None:
        """Write a change of the task, again after another writer was first or the store was away, while it is ours."""
        store = self.context.store
        while self._is_ours():
            new = change(self.task)
            if new is None:
                break
            try:
                await store.write(Put(new), *(await self._release() if new.is_over else [Check(self._claim)]))
                break
            except Changed:
                continue
            except StoreUnavailable as error:
                log.warning("task %s waits for the store: %s", self.task.id, error)
                await self.context.clock.sleep(PAUSE_SECONDS)
                await store.live()

    def _is_ours(self) -> bool:
        """Return whether the task can still be written. Raises `ClaimLostError` when another worker may have it."""
        claim = self.context.store.get(Claim, self._claim.id)
        if self.task.attempt == self._attempt and self.task.is_over:
            return False
        if self.task.attempt != self._attempt or claim is None or claim.session != self._claim.session:
            raise ClaimLostError
        return True

    async def _release(self) -> list[Change]:
        """Return the changes that go with the end of the task."""
        return [Delete(self._claim), *await release(self.context.store, self.task)]

    def _ended(self, task: Task, state: str, sentence: str) -> Task:
        return task.changed(state=state, sentence=plain(sentence), ended=self._now())

    def _now(self) -> float:
        return self.context.clock.time()

    def _step(self, record: StepRecord) -> Step:
        try:
            return self._steps[record.name]
        except KeyError:
            raise Failed(f"Cannot run or undo step {record.name!r}: no plugin declares it any more.") from None


class RecordedRun(Run):
    """A run of a step that stores its journal in the task."""

    def __init__(self, runner: TaskRunner, record: StepRecord, memory: dict[str, Any]) -> None:
        super().__init__(runner.context, runner.task, memory, record.journal)
        self._runner = runner
        self._record = record
        self._next_progress = 0.0

    @property
    def task(self) -> Task:
        """The task as it is now."""
        return self._runner.task

    async def log(self, text: str) -> None:
        """Add lines to the task's log."""
        await self._runner.log(text)

    async def progress(self, sentence: str) -> None:
        """Report the progress of the step: in the log, and once a second in the task."""
        await self.log(sentence)
        now = self.context.clock.monotonic()
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_SECONDS
            whole = f"{self._record.title}: {sentence}"
            await self._runner.keep_step(self._record, whole, sentence=plain(sentence))

    async def _keep(self, journal: dict[str, Any]) -> None:
        others = [step.journal for step in self.task.steps if step.name != self._record.name]
        refuse_too_large("journal of the task", [*others, journal], MAX_JOURNALS_BYTES)
        await self._runner.keep_step(self._record, journal=journal)
        await super()._keep(journal)


def _is_abandoned() -> bool:
    """Return whether this asyncio task was cancelled, even if a step has swallowed the cancellation."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _sentence_of(error: Exception, what: str) -> str:
    """Return an error as one sentence; an unexpected one is logged with its traceback."""
    if isinstance(error, PvcdError):
        return error.sentence
    log.error("%s failed", what, exc_info=error)
    return f"{type(error).__name__}: {error}"
