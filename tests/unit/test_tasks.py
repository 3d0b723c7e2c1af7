"""Tasks: in spite of failures, cancellations and deaths, a task ends once, finished or undone, and says how."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any
from uuid import UUID, uuid4

import pytest

from pvcd import (
    Conflict,
    Context,
    Delete,
    Failed,
    Invalid,
    NotFound,
    Outcome,
    Role,
    Run,
    Step,
    StoreUnavailable,
    Task,
    tasks,
)
from pvcd.clock import settle
from pvcd.daemon import worker as worker_module
from pvcd.daemon.components import make_context
from pvcd.daemon.worker import LOOK_SECONDS, Worker, worker
from pvcd.plugin.loading import Plugin, PluginError
from pvcd.plugin.registry import collect
from pvcd.process import ProcessIdentity
from pvcd.store.memory import MemoryTree
from pvcd.store.tree import MAX_DOCUMENT_BYTES, Node, NodeChange
from pvcd.tasks.logs import TASK_LOGS
from pvcd.tasks.records import (
    MAX_JOURNALS_BYTES,
    MAX_SENTENCE_CHARACTERS,
    MAX_VALUES_BYTES,
    Claim,
    TaskSecrets,
    TaskSubject,
    plain,
)
from pvcd.tasks.runner import MAX_ATTEMPTS, UNDO_RETRY_SECONDS, UNDO_TRIES
from pvcd.testing import SimulatedCluster

from .conftest import plugin

BUILT_IN = ("ceph", "network", "node", "provisioner", "vm")
NAMES = ("first", "second", "third")
Action = Callable[[], Awaitable[object]]


class Moments:
    """Every moment at which something can happen to a worker; at one of them something does."""

    def __init__(self) -> None:
        self.passed = 0
        self.chosen = 0
        self.action: Action | None = None

    def at(self, number: int, action: Action) -> None:
        self.passed, self.chosen, self.action = 0, number, action

    async def __call__(self) -> None:
        self.passed += 1
        if self.passed == self.chosen and self.action:
            await asyncio.wait([asyncio.ensure_future(self.action())])


class WorkersTree(MemoryTree):
    """The store as a worker reaches it: before and after each write something may happen."""

    moments: Moments

    async def commit(self, changes: Any) -> list[Node | None]:
        await self.moments()
        result = await super().commit(changes)
        await self.moments()
        return result


class ForgetfulTree(MemoryTree):
    """Every other write is done, but its answer is lost."""

    odd = False

    async def commit(self, changes: Iterable[NodeChange]) -> list[Node | None]:
        result = await super().commit(list(changes))
        self.odd = not self.odd
        if self.odd:
            raise StoreUnavailable("The answer was lost.")
        return result


class World:
    """The outside world that the steps change, and their acts."""

    def __init__(self) -> None:
        self.things: set[str] = set()
        self.lines: list[str] = []
        self.dead: set[MemoryTree] = set()
        self.moments = Moments()
        self.held: dict[str, asyncio.Event] = {}
        self.troubles: dict[str, Exception] = {}
        self.at_work = self.most_at_work = 0

    def hold(self, act: str) -> asyncio.Event:
        """Let an act wait until the event is set."""
        return self.held.setdefault(act, asyncio.Event())

    async def act(self, run: Run, act: str) -> None:
        """Something that is done outside."""
        assert run.context.store.tree not in self.dead, f"a dead worker did {act}"
        await self.moments()
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            self.lines.append(act)
            if act in self.troubles:
                raise self.troubles[act]
            if act in self.held:
                await self.held[act].wait()
        finally:
            self.at_work -= 1
        verb, _, thing = act.partition(" ")
        (self.things.add if verb == "make" else self.things.discard)(thing)
        await self.moments()

    def step(self, name: str, order: int) -> Step:
        """One that makes a thing."""

        async def make(run: Run) -> Outcome:
            await run.intend(thing=f"{run.task.subject}-{name}")
            await self.act(run, f"make {run.task.subject}-{name}")
            run.memory.setdefault("made", []).append(name)
            return Outcome("changed", f"Made after {len(run.memory['made']) - 1}.")

        async def unmake(run: Run) -> None:
            await self.act(run, f"unmake {run.journal['thing']}")

        async def check(run: Run) -> str:
            return f"Would make {run.task.subject}-{name}."

        return Step("build", name, order, f"The {name} step", make, unmake, check)


class Site:
    """A store, an API, a world, and any number of workers."""

    def __init__(self, *more: Step, **sections: Any) -> None:
        self.world = World()
        steps = [self.world.step(name, 10 * number) for number, name in enumerate(NAMES)]
        self.cluster = SimulatedCluster(
            [], [plugin("builder", steps=[*reversed(steps), *more])], {}, BUILT_IN, **sections
        )
        self.workers: dict[str, tuple[Worker, Context, contextlib.AsyncExitStack]] = {}

    @property
    def api(self) -> Context:
        return self.cluster.api

    async def submit(self, subject: str = "x", **values: Any) -> Task:
        return await tasks.submit(self.api, "build", subject, values)

    def task(self, id: UUID) -> Task:
        task = self.api.store.get(Task, id)
        assert task
        return task

    async def start(self, name: str = "one", tree: MemoryTree | None = None) -> Worker:
        """Start a worker."""
        tree = tree or MemoryTree(self.cluster.server)
        context = make_context(Role.WORKER, self.cluster.settings, self.cluster.registry, tree, self.cluster.clock)
        stack = contextlib.AsyncExitStack()
        life = ProcessIdentity(boot=name, namespace=1, pid=1, started=1)
        self.workers[name] = await stack.enter_async_context(worker(context, life)), context, stack
        return self.workers[name][0]

    async def start_mortal(self) -> None:
        """Start a worker that things happen to."""
        tree = WorkersTree(self.cluster.server)
        tree.moments = Moments()
        await self.start("mortal", tree)
        tree.moments = self.world.moments

    def tree(self, name: str) -> MemoryTree:
        tree = self.workers[name][1].store.tree
        assert isinstance(tree, MemoryTree)
        return tree

    async def kill(self, name: str) -> None:
        """Let a worker do nothing more, and end its session; a call from the worker itself never returns."""
        tree = self.tree(name)
        self.world.dead.add(tree)
        self.cluster.server.cut(tree)
        self.cluster.server.expire(tree.session)
        await asyncio.Event().wait()

    async def stop(self, name: str = "one") -> None:
        *_, stack = self.workers.pop(name)
        await self.finish(stack.aclose())

    async def finish(self, work: Awaitable[Any], seconds: float = 300.0) -> Any:
        waiting = asyncio.ensure_future(work)
        await self.until(waiting.done, seconds)
        return await waiting

    async def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        end = self.cluster.clock.time() + seconds
        await settle()
        while not condition():
            assert self.cluster.clock.time() < end, f"it did not come true within {seconds} s"
            await self.cluster.advance(0.25)

    async def ended(self, id: UUID, seconds: float = 60.0) -> Task:
        """The task when it is over, with nothing of it left behind in the store."""
        await self.until(lambda: self.task(id).is_over, seconds)
        await settle()
        store = self.api.store
        assert store.get(Claim, id) is None
        assert [subject for subject in store.all(TaskSubject) if subject.task == id] == []
        assert await store.read(TaskSecrets, id) is None
        return self.task(id)

    async def log(self, id: UUID) -> list[str]:
        return [line.text for line in await self.api[TASK_LOGS].read(id)]

    async def close(self) -> None:
        for event in self.world.held.values():
            event.set()
        for name, (_, _, stack) in self.workers.items():
            if self.tree(name) in self.world.dead:
                await self.cluster.advance(30)  # it abandons what it can do nothing about
            await self.finish(stack.aclose())


@contextlib.asynccontextmanager
async def site_of(*more: Step, **sections: Any) -> AsyncIterator[Site]:
    site = Site(*more, **sections)
    async with site.cluster:
        try:
            yield site
        finally:
            await site.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with site_of() as site:
        yield site


def states(task: Task) -> list[str]:
    return [step.state for step in task.steps]


ALL = {"x-first", "x-second", "x-third"}


# Asking


async def test_task_is_durable_before_a_worker_runs_it(site: Site) -> None:
    task = await site.submit(size=3)
    assert site.task(task.id) == task
    assert (task.state, task.values, task.created) == ("pending", {"size": 3}, site.cluster.clock.time())
    assert [(step.name, step.title, step.state) for step in task.steps] == [
        (name, f"The {name} step", "waiting") for name in NAMES
    ]
    assert await tasks.find(site.api, task.id) == task


async def test_subject_has_one_task_of_a_kind_at_a_time(site: Site) -> None:
    results = await asyncio.gather(*(site.submit() for _ in range(5)), return_exceptions=True)
    made = [result for result in results if isinstance(result, Task)]
    refused = [result for result in results if isinstance(result, Conflict)]
    assert (len(made), len(refused)) == (1, 4)
    assert refused[0].code == "task-in-progress"
    assert refused[0].sentence == f"Cannot start build for 'x': task {made[0].id} is in progress."
    assert len(site.api.store.all(Task)) == 1
    await site.submit("y")


async def test_a_subject_is_free_again_when_its_task_is_over(site: Site) -> None:
    await site.start()
    first = await site.submit()
    await site.ended(first.id)
    second = await site.submit()
    assert (await site.ended(second.id)).state == "success"


async def test_unknown_task_and_kind_are_reported(site: Site) -> None:
    for ask in (tasks.find, tasks.cancel):
        with pytest.raises(NotFound) as caught:
            await ask(site.api, uuid4())
        assert caught.value.code == "task-not-found"
    with pytest.raises(LookupError, match="no plugin declares steps of the kind 'brew'"):
        await tasks.submit(site.api, "brew", "x", {})


async def test_size_of_values_is_bounded(site: Site) -> None:
    with pytest.raises(Invalid, match="values of a task must have at most"):
        await site.submit(data="x" * MAX_VALUES_BYTES)


async def test_dry_run_reports_each_step_and_writes_nothing(site: Site) -> None:
    await site.start()
    serial = site.cluster.server.serial
    planned = await tasks.check(site.api, "build", "x", {})
    assert [(each.name, each.title, each.sentence) for each in planned] == [
        (name, f"The {name} step", f"Would make x-{name}.") for name in NAMES
    ]
    assert (site.cluster.server.serial, site.world.lines) == (serial, [])


# Running


async def test_steps_run_in_order_and_report_their_outcome(site: Site) -> None:
    await site.start()
    task = await site.ended((await site.submit()).id)
    assert (task.state, task.sentence, task.leftovers) == ("success", "Done.", ())
    assert states(task) == ["changed"] * 3
    assert [step.sentence for step in task.steps] == ["Made after 0.", "Made after 1.", "Made after 2."]
    assert site.world.lines == [f"make x-{name}" for name in NAMES]
    assert task.started and task.ended and task.worker == site.workers["one"][0].name
    assert await site.log(task.id) == [f"The {name} step: changed. Made after {n}." for n, name in enumerate(NAMES)]


async def test_secrets_are_kept_apart_until_the_task_ends() -> None:
    seen: list[Any] = []

    async def look(run: Run) -> Outcome:
        seen.append(await run.secrets())
        return Outcome("ok")

    async with site_of(Step("build", "look", 5, "Look", run=look)) as site:
        task = await tasks.submit(site.api, "build", "x", {"size": 3}, {"password": "s3cret"})
        assert await site.api.store.read(TaskSecrets, task.id)
        assert "s3cret" not in task.model_dump_json()
        await site.start()
        await site.ended(task.id)
        assert seen == [{"password": "s3cret"}]
        waiting = await tasks.submit(site.api, "build", "y", {}, {"password": "s3cret"})
        await tasks.cancel(site.api, waiting.id)
        await site.ended(waiting.id)


async def test_intent_is_durable_before_the_act(site: Site) -> None:
    seen: list[dict[str, Any]] = []
    task = await site.submit()

    async def look() -> None:
        await site.api.store.catch_up()
        seen.extend(step.journal for step in site.task(task.id).steps)

    site.world.moments.at(1, look)
    await site.start()
    await site.ended(task.id)
    assert seen == [{"thing": "x-first"}, {}, {}]


async def test_progress_of_a_step_is_written_at_most_once_a_second() -> None:
    async def long(run: Run) -> Outcome:
        for number in range(100):
            await run.progress(f"{number} of 100.")
        await run.context.clock.sleep(30)
        return Outcome("ok")

    async with site_of(Step("long", "long", 1, "The long step", long)) as site:
        await site.start()
        task = await tasks.submit(site.api, "long", "x", {})
        await site.until(lambda: site.task(task.id).sentence == "The long step: 0 of 100.")
        assert site.task(task.id).version < 5  # type: ignore[operator]
        assert len(await site.log(task.id)) == 100
        assert states(await site.ended(task.id)) == ["ok"]


async def test_number_of_concurrent_tasks_is_limited() -> None:
    async with site_of(worker={"threads": 3}) as site:
        go = [site.world.hold(f"make x{number}-first") for number in range(8)]
        one = await site.start()
        submitted = [await site.submit(f"x{number}") for number in range(8)]
        attending = [asyncio.ensure_future(one.attend(task.id)) for task in submitted]
        await site.cluster.advance(10)
        assert sum(site.task(task.id).state == "running" for task in submitted) == 3
        for event in go:
            event.set()
        for task in submitted:
            assert (await site.ended(task.id)).state == "success"
        await asyncio.gather(*attending)
        assert site.world.most_at_work == 3


async def test_oldest_task_runs_first(site: Site) -> None:
    submitted = []
    for number in range(6):
        submitted.append(await site.submit(f"x{number}"))
        await site.cluster.advance(1)
    await site.start()
    for task in submitted:
        await site.ended(task.id)
    assert [line for line in site.world.lines if line.endswith("-first")] == [f"make x{n}-first" for n in range(6)]


async def test_task_runs_once_however_often_its_message_comes(site: Site) -> None:
    one = await site.start()
    task = await site.submit()
    await site.finish(asyncio.gather(*(one.attend(task.id) for _ in range(5))))
    assert (await site.ended(task.id)).state == "success"
    await site.finish(one.attend(task.id))
    await site.finish(one.attend(uuid4()))
    assert site.world.lines == [f"make x-{name}" for name in NAMES]


async def test_several_workers_run_each_task_once(site: Site) -> None:
    workers = [await site.start(str(number)) for number in range(3)]
    submitted = [await site.submit(f"x{number}") for number in range(6)]
    messages = [asyncio.ensure_future(each.attend(task.id)) for task in submitted for each in workers]
    for task in submitted:
        assert (await site.ended(task.id)).state == "success"
    await site.finish(asyncio.gather(*messages))
    assert len(site.world.lines) == len(set(site.world.lines)) == 18
    assert {site.task(task.id).attempt for task in submitted} == {1}


# Failing


async def test_failed_task_is_undone_in_reverse(site: Site) -> None:
    await site.start()
    site.world.troubles["make x-third"] = Conflict("There is no room.")
    task = await site.ended((await site.submit()).id)
    assert (task.state, task.sentence, task.leftovers) == ("failure", "The third step: There is no room.", ())
    assert states(task) == ["undone", "undone", "failed"]
    assert site.world.lines[3:] == ["unmake x-third", "unmake x-second", "unmake x-first"]
    assert site.world.things == set()


async def test_unexpected_error_is_a_failure(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    await site.start()
    site.world.troubles["make x-second"] = KeyError("size")
    task = await site.ended((await site.submit()).id)
    assert (task.state, task.sentence) == ("failure", "The second step: KeyError: 'size'")
    assert site.world.things == set()
    assert [record.message for record in caplog.records if record.exc_info] == [
        f"step 'second' of task {task.id} failed"
    ]


async def test_step_that_cancels_itself_has_failed() -> None:
    async def strange(run: Run) -> Outcome:
        raise asyncio.CancelledError

    async with site_of(Step("build", "strange", 99, "The strange step", strange)) as site:
        await site.start()
        task = await site.ended((await site.submit()).id)
        assert (task.state, task.sentence) == ("failure", "The strange step: The step cancelled itself.")
        assert site.world.things == set()


async def test_leftovers_are_named_and_the_rest_is_undone(site: Site) -> None:
    await site.start()
    site.world.troubles["make x-third"] = Conflict("There is no room.")
    site.world.troubles["unmake x-second"] = Failed("It is in use.")
    task = await site.ended((await site.submit()).id)
    assert (task.state, task.sentence) == ("failure", "The third step: There is no room.")
    assert task.leftovers == ("The second step: It is in use.",)
    assert states(task) == ["undone", "changed", "failed"]
    assert site.world.lines.count("unmake x-second") == UNDO_TRIES
    assert site.world.things == {"x-second"}


async def test_slow_failing_undo_is_not_retried() -> None:
    tries = []

    async def act(run: Run) -> Outcome:
        raise Conflict("No.")

    async def make(run: Run) -> Outcome:
        return Outcome("changed")

    async def wait(run: Run) -> None:
        tries.append(run.context.clock.monotonic())
        await run.context.clock.sleep(UNDO_RETRY_SECONDS)
        raise Failed("It is still in use.")

    async with site_of(Step("odd", "make", 1, "Make", make, wait), Step("odd", "act", 2, "Act", act)) as site:
        await site.start()
        task = await site.ended((await tasks.submit(site.api, "odd", "x", {})).id)
        assert (task.leftovers, len(tries)) == (("Make: It is still in use.",), 1)


async def test_only_steps_that_may_have_acted_are_undone() -> None:
    undone: list[str] = []

    def step(name: str, order: int, state: Any, journal: bool, then: str | None = None) -> Step:
        async def run(run: Run) -> Outcome:
            if journal:
                await run.intend(name=name, id=UUID(int=1))
            if then == "withdraw":
                await run.withdraw("name", "id")
            if then == "fail":
                raise Conflict("No.")
            return Outcome(state)

        async def undo(run: Run) -> None:
            assert not journal or run.journal["id"] == str(UUID(int=1))
            undone.append(name)

        return Step("odd", name, order, name, run, undo)

    steps = [
        step("changed", 1, "changed", journal=False),
        step("ok", 2, "ok", journal=False),
        step("intended", 3, "ok", journal=True),
        step("withdrawn", 4, "ok", journal=True, then="withdraw"),
        step("skipped", 5, "skipped", journal=False),
        step("failed", 6, "ok", journal=False, then="fail"),
        step("never", 7, "changed", journal=True),
    ]
    async with site_of(*steps) as site:
        await site.start()
        task = await tasks.submit(site.api, "odd", "x", {})
        assert states(await site.ended(task.id)) == ["undone", "ok", "undone", "ok", "skipped", "failed", "waiting"]
        assert undone == ["intended", "changed"]


async def test_journals_and_record_of_a_task_are_bounded() -> None:
    async def talk(run: Run) -> Outcome:
        await run.intend(much="x" * (MAX_JOURNALS_BYTES // 2))
        return Outcome("changed", "é\n\x1b" * MAX_DOCUMENT_BYTES)

    steps = [Step("talk", f"talk{n}", n, f"Talk {n}", talk) for n in range(3)]
    async with site_of(*steps) as site:
        await site.start()
        task = await tasks.submit(site.api, "talk", "x", {"data": "x" * (MAX_VALUES_BYTES - 100)})
        task = await site.ended(task.id)
        assert task.sentence.startswith("Talk 1: journal of the task must have at most")
        assert len(task.steps[0].sentence) <= MAX_SENTENCE_CHARACTERS
        assert len(task.encode()) < MAX_DOCUMENT_BYTES


def test_sentence_is_one_printable_line() -> None:
    assert plain(" a\nb\x1b[31m\tc\ud800 ") == "a b [31m c"
    assert len(plain("x" * 10_000)) == MAX_SENTENCE_CHARACTERS


async def test_undeclared_step_is_a_failure(site: Site) -> None:
    task = await site.submit()
    registry = site.cluster.registry
    rest = tuple(step for step in registry.steps if step.name != "second")
    site.cluster.registry = dataclasses.replace(registry, steps=rest)
    await site.start()
    task = await site.ended(task.id)
    assert task.sentence == "The second step: Cannot run or undo step 'second': no plugin declares it any more."
    assert site.world.things == set()


# Cancelling


async def test_pending_task_is_cancelled_at_once(site: Site) -> None:
    task = await site.submit()
    assert (await tasks.cancel(site.api, task.id)).state == "cancelled"
    await site.ended(task.id)
    await site.start()
    await site.cluster.advance(10)
    assert site.world.lines == []


async def test_ended_task_cannot_be_cancelled(site: Site) -> None:
    await site.start()
    task = await site.submit()
    await site.ended(task.id)
    with pytest.raises(Conflict, match=f"Cannot cancel task {task.id}: it has ended with success."):
        await tasks.cancel(site.api, task.id)


async def test_step_that_swallows_a_cancellation_is_the_last() -> None:
    async def stubborn(run: Run) -> Outcome:
        await run.intend(it="done")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        assert run.cancelled
        return Outcome("changed", "Done.")

    async with site_of(Step("build", "stubborn", 5, "The stubborn step", stubborn)) as site:
        await site.start()
        task = await site.submit()
        await site.until(lambda: site.task(task.id).steps[1].journal)
        await tasks.cancel(site.api, task.id)
        assert states(await site.ended(task.id)) == ["undone", "undone", "waiting", "waiting"]
        assert site.task(task.id).state == "cancelled"


async def test_cancelled_step_can_finish_its_cleanup() -> None:
    async def orderly(run: Run) -> Outcome:
        await run.intend(it="begun")
        try:
            await asyncio.Event().wait()
        finally:
            await run.intend(it="stopping")
            await run.progress("Stopping.")
            await run.intend(it="stopped")
        return Outcome("ok")

    async with site_of(Step("build", "orderly", 5, "The orderly step", orderly)) as site:
        await site.start()
        task = await site.submit()
        await site.until(lambda: site.task(task.id).steps[1].journal)
        await tasks.cancel(site.api, task.id)
        assert (await site.ended(task.id)).state == "cancelled"
        assert site.task(task.id).steps[1].journal == {"it": "stopped"}


async def cancelled_at(moment: int, held: str = "") -> bool:
    """Let a task be cancelled at a moment of its worker; whether there is such a moment."""
    async with site_of() as site:
        if held:
            site.world.hold(held)
        refused: list[Conflict] = []
        await site.start_mortal()
        task = await site.submit()

        async def cancel() -> None:
            try:
                await tasks.cancel(site.api, task.id)
            except Conflict as error:
                refused.append(error)

        site.world.moments.at(moment, cancel)
        task = await site.ended(task.id)
        if site.world.moments.passed < moment or refused:
            assert task.state == "success" and site.world.things == ALL
        else:
            assert task.state == "cancelled" and site.world.things == set(), moment
            assert task.sentence == "Cancelled." and not set(states(task)) & {"running", "changed"}
        return site.world.moments.passed >= moment


async def test_task_can_be_cancelled_at_every_moment() -> None:
    moment = 1
    while await cancelled_at(moment):
        moment += 1
    assert moment > 25


async def test_endless_step_can_be_cancelled_at_every_moment() -> None:
    for moment in range(1, 8):
        assert await cancelled_at(moment, held="make x-first")


# Dying


async def died_at(moment: int, *, of: Exception | None = None, twice: int = 0) -> bool:
    """Let a worker die at a moment, and perhaps the next one too; whether there is such a moment."""
    async with site_of() as site:
        if of:
            site.world.troubles["make x-third"] = of
        await site.start_mortal()
        task = await site.submit()
        site.world.moments.at(moment, lambda: site.kill("mortal"))
        await site.until(lambda: site.task(task.id).is_over or site.world.dead)
        died, then = bool(site.world.dead), site.task(task.id)
        if died and twice:
            await second_death(site, twice)
        site.world.moments.action = None
        await site.start("next")
        task = await site.ended(task.id, 20)
        if then.has_all_done or not (then.has_begun or of):
            assert (task.state, site.world.things) == ("success", ALL), moment
        else:
            assert task.state == "failure" and site.world.things == set() and task.leftovers == (), moment
            assert "died or lost" in task.sentence or of
            assert not set(states(task)) & {"running", "changed"}
        return died


async def second_death(site: Site, moment: int) -> None:
    """Start a worker that dies too."""
    tree = WorkersTree(site.cluster.server)
    tree.moments = Moments()
    await site.start("second", tree)
    tree.moments = site.world.moments
    site.world.moments.at(moment, lambda: site.kill("second"))
    await site.cluster.advance(3 * LOOK_SECONDS)


async def test_a_worker_can_die_at_every_moment() -> None:
    moment = 1
    while await died_at(moment):
        moment += 1
    assert moment > 25


async def test_a_worker_can_die_at_every_moment_of_undoing() -> None:
    moment = 1
    while await died_at(moment, of=Conflict("There is no room.")):
        moment += 1
    assert moment > 40


@pytest.mark.parametrize("first", [4, 8, 11, 14, 20])
async def test_the_worker_that_undoes_can_die_at_every_moment_too(first: int) -> None:
    for second in range(1, 30):
        await died_at(first, twice=second)


async def test_next_worker_reports_the_step_in_which_the_last_one_died(site: Site) -> None:
    site.world.hold("make x-second")
    await site.start_mortal()
    task = await site.submit()
    await site.until(lambda: "make x-second" in site.world.lines)
    killing = asyncio.ensure_future(site.kill("mortal"))
    await site.start("next")
    task = await site.ended(task.id, 3 * LOOK_SECONDS)
    killing.cancel()
    assert (task.state, task.sentence) == ("failure", "The second step: The task worker died or lost ZooKeeper.")
    assert states(task) == ["undone", "failed", "waiting"]
    assert site.world.things == set()


async def test_next_worker_waits_one_look_more_before_it_undoes(site: Site) -> None:
    """Whoever lost the claim may still be stopping what it did."""
    site.world.hold("make x-second")
    await site.start_mortal()
    task = await site.submit()
    await site.until(lambda: "make x-second" in site.world.lines)
    two = await site.start("two")
    await site.cluster.advance(LOOK_SECONDS / 2)
    killing = asyncio.ensure_future(site.kill("mortal"))
    await settle()
    assert site.api.store.get(Claim, task.id) is None
    await two.attend(task.id)
    await site.cluster.advance(LOOK_SECONDS)
    assert site.task(task.id).attempt == 1
    await site.ended(task.id, LOOK_SECONDS)
    killing.cancel()


async def test_leftovers_are_named_once_however_many_workers_try(site: Site) -> None:
    site.world.troubles["make x-third"] = Conflict("There is no room.")
    site.world.troubles["unmake x-second"] = Failed("It is in use.")
    site.world.hold("unmake x-first")
    await site.start_mortal()
    task = await site.submit()
    await site.until(lambda: "unmake x-first" in site.world.lines)
    killing = asyncio.ensure_future(site.kill("mortal"))
    await settle()
    site.world.held["unmake x-first"].set()
    await site.start("next")
    assert (await site.ended(task.id)).leftovers == ("The second step: It is in use.",)
    killing.cancel()


async def test_next_worker_does_not_wait_for_a_dead_process(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart on the same machine its session still lives for a while."""
    site.world.hold("make x-second")
    await site.start_mortal()
    task = await site.submit()
    await site.until(lambda: "make x-second" in site.world.lines)
    site.cluster.server.cut(site.tree("mortal"))
    site.world.dead.add(site.tree("mortal"))
    monkeypatch.setattr(ProcessIdentity, "has_ended", lambda process: process.boot == "mortal")
    await site.start("next")
    await settle()
    assert (await site.ended(task.id, 0.5)).state == "failure"


async def test_task_whose_workers_all_die_ends_and_names_its_leftovers(site: Site) -> None:
    site.world.hold("make x-second")
    site.world.hold("unmake x-second")
    task = await site.submit()
    killing = []
    for number in range(MAX_ATTEMPTS):
        await site.start(str(number))
        await site.until(lambda number=number: site.task(task.id).attempt == number + 1)  # type: ignore[misc]
        await site.cluster.advance(1)
        killing.append(asyncio.ensure_future(site.kill(str(number))))
        await settle()
    await site.start("last")
    task = await site.ended(task.id)
    for each in killing:
        each.cancel()
    assert task.state == "failure"
    assert task.leftovers == tuple(
        f"The {name} step: not undone: the task worker died in every attempt." for name in ("second", "first")
    )


async def test_stopped_worker_undoes_its_tasks_and_claims_no_more(site: Site) -> None:
    site.world.hold("make x-second")
    one = await site.start()
    task = await site.submit()
    await site.until(lambda: "make x-second" in site.world.lines)
    stopping = asyncio.ensure_future(site.stop())
    other = await site.submit("y")
    await one.attend(other.id)
    await stopping
    assert site.task(task.id).state == "failure"
    assert site.task(task.id).sentence == "The second step: The task worker was stopped."
    assert (site.world.things, site.task(other.id).state) == (set(), "pending")


@pytest.mark.parametrize("moment", range(1, 8))
async def test_a_worker_can_be_stopped_at_every_moment(
    site: Site, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    monkeypatch.setattr(worker_module, "STOP_SECONDS", 5.0)
    held = site.world.hold("make x-first")
    await site.start_mortal()
    task = await site.submit()
    stopping: list[asyncio.Task[None]] = []

    async def stop() -> None:
        stopping.append(asyncio.ensure_future(site.stop("mortal")))
        await settle()

    site.world.moments.at(moment, stop)
    await site.until(lambda: stopping and stopping[0].done())
    held.set()
    await site.start("next")
    task = await site.ended(task.id)
    if moment <= 2:  # it was just being taken, so the next worker can do it all
        assert (task.state, site.world.things) == ("success", ALL)
    else:
        assert (task.sentence, site.world.things) == ("The first step: The task worker was stopped.", set())


async def test_worker_stopped_twice_leaves_the_rest_to_the_next(site: Site) -> None:
    site.world.hold("make x-second")
    site.world.hold("unmake x-second")
    await site.start()
    task = await site.submit()
    await site.until(lambda: "make x-second" in site.world.lines)
    stopping = asyncio.ensure_future(site.stop())
    await site.until(lambda: "unmake x-second" in site.world.lines)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    await site.cluster.advance(1)
    assert not site.task(task.id).is_over
    site.world.held["unmake x-second"].set()
    await site.start("next")
    assert (await site.ended(task.id)).sentence == "The second step: The task worker was stopped."
    assert site.world.things == set()


# Losing touch


async def test_short_loss_of_the_store_changes_nothing(site: Site) -> None:
    go = site.world.hold("make x-second")
    await site.start()
    task = await site.submit()
    await site.until(lambda: "make x-second" in site.world.lines)
    site.cluster.server.stop()
    go.set()
    await site.cluster.advance(2)
    assert site.world.lines[-1] == "make x-second"
    site.cluster.server.start()
    assert (await site.ended(task.id)).state == "success"


async def test_lost_answers_change_nothing(site: Site) -> None:
    await site.start("one", ForgetfulTree(site.cluster.server))
    task = await site.ended((await site.submit()).id)
    assert (task.state, site.world.things) == ("success", ALL)
    assert site.world.lines == [f"make x-{name}" for name in NAMES]


async def test_worker_without_the_store_stops_before_its_session_can_have_ended(site: Site) -> None:
    site.world.hold("make x-second")
    await site.start()
    task = await site.submit()
    await site.until(lambda: "make x-second" in site.world.lines)
    assert site.world.at_work == 1
    site.cluster.server.cut(site.tree("one"))
    await site.cluster.advance(site.cluster.settings.zookeeper.session_timeout / 3 + 0.5)
    assert site.world.at_work == 0
    lines = list(site.world.lines)
    site.cluster.server.heal(site.tree("one"))  # its session lasted: it takes the task again
    assert (await site.ended(task.id)).sentence == "The second step: The task worker died or lost ZooKeeper."
    assert site.world.lines == [*lines, "unmake x-second", "unmake x-first"]


async def test_paused_worker_writes_and_undoes_nothing_more(site: Site) -> None:
    """Its session ends and another one takes the task while it knows of nothing; then it goes on."""
    go = site.world.hold("make x-second")
    await site.start()
    task = await site.submit()
    await site.until(lambda: "make x-second" in site.world.lines)
    tree = site.tree("one")
    site.cluster.server.expire(tree.session)
    go.set()
    await site.start("next")
    task = await site.ended(task.id)
    await site.cluster.advance(5)
    assert task.attempt == 2
    assert task.sentence == "The second step: The task worker died or lost ZooKeeper."
    assert site.world.lines[2:] == ["unmake x-second", "unmake x-first"]
    assert site.task(task.id).version == task.version


async def test_worker_stops_at_once_when_its_session_has_ended(site: Site) -> None:
    site.world.hold("make x-second")
    one = await site.start()
    await site.submit()
    await site.until(lambda: "make x-second" in site.world.lines)
    one._unsubscribe()
    one._unsubscribe = lambda: None
    site.cluster.server.expire(site.tree("one").session)
    await settle()
    assert site.world.at_work == 0


async def test_worker_stops_at_once_when_its_claim_is_removed(site: Site) -> None:
    site.world.hold("make x-second")
    await site.start()
    task = await site.submit()
    await site.until(lambda: "make x-second" in site.world.lines)
    claim = site.api.store.get(Claim, task.id)
    assert claim
    await site.api.store.write(Delete(claim))
    await settle()
    assert site.world.at_work == 0
    assert (await site.ended(task.id)).state == "failure"


async def test_writes_of_a_worker_without_claim_are_refused(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Even before it hears of that: the claim is removed behind its back in the middle of a write."""
    go = site.world.hold("make x-second")
    await site.start_mortal()
    task = await site.submit()
    await site.until(lambda: "make x-second" in site.world.lines)
    tree = site.tree("mortal")

    async def take_over() -> None:
        tree._roots.clear()  # it hears of nothing
        site.cluster.server.documents = {
            path: node for path, node in site.cluster.server.documents.items() if not path.startswith("/task-claims/")
        }

    site.world.moments.at(2, take_over)  # right before the result is written
    go.set()
    version = site.task(task.id).version
    with caplog.at_level(logging.WARNING):
        await site.until(lambda: f"task {task.id} is lost: another worker may claim it" in caplog.messages)
    assert site.task(task.id).version == version


# Keeping


async def test_ended_tasks_are_kept_up_to_an_age_and_a_number(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "MAX_KEPT_TASKS", 3)
    monkeypatch.setattr(worker_module, "KEPT_SECONDS", 60)
    await site.start()
    submitted = []
    for number in range(5):
        submitted.append(await site.submit(f"x{number}"))
        await site.ended(submitted[-1].id)
        await site.cluster.advance(1)
    await site.cluster.advance(2 * LOOK_SECONDS)
    assert {task.id for task in site.api.store.all(Task)} == {task.id for task in submitted[2:]}
    await site.cluster.advance(60)
    assert site.api.store.all(Task) == []


async def test_log_is_followed_until_its_task_ends(site: Site) -> None:
    go = site.world.hold("make x-third")
    await site.start()
    task = await site.submit()
    lines: list[str] = []

    async def follow() -> None:
        async for line in tasks.follow(site.api, task.id):
            lines.append(line.text)

    following = asyncio.ensure_future(follow())
    await site.until(lambda: len(lines) == 2)
    go.set()
    await site.finish(following)
    assert lines == await site.log(task.id)
    assert site.task(task.id).is_over and len(lines) == 3


# Declaring


def test_steps_of_a_kind_are_in_order() -> None:
    async def nothing(run: Run) -> Outcome:
        return Outcome("ok")

    def steps(*places: tuple[str, int]) -> list[Step]:
        return [Step("build", name, order, name, nothing) for name, order in places]

    one = Plugin("one", plugin("one", steps=steps(("last", 90), ("first", 10))), "given to the test")
    two = Plugin("two", plugin("two", steps=steps(("middle", 50))), "given to the test")
    assert [step.name for step in collect([one, two]).steps] == ["first", "middle", "last"]
    three = Plugin("three", plugin("three", steps=steps(("first", 20))), "given to the test")
    with pytest.raises(PluginError, match=r"The step 'build first' is declared by both 'one' and 'three'."):
        collect([one, three])
