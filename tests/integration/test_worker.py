"""Task workers as processes with a real ZooKeeper and Redis: killed, stopped, paused, and without one of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from pvcd import Role, Task, tasks
from pvcd.clock import SystemClock
from pvcd.daemon.components import make_context, open_components
from pvcd.daemon.run import tree
from pvcd.declare.context import Context
from pvcd.plugin import registry
from pvcd.tasks.dramatiq_queue import DramatiqQueue
from pvcd.tasks.queue import TASK_QUEUE
from pvcd.tasks.records import Claim, TaskSubject
from tests.contract.conftest import ZooKeeperServer
from tests.contract.redis_server import RedisServer, redis_server
from tests.servers import Daemon, settings, zookeeper_server

PLUGIN = Path(__file__).parent / "task_plugin"
BUILT_IN = ["ceph", "network", "node", "provisioner", "vm"]
SESSION = 3.0
MADE = [f"make x-{name}" for name in ("first", "second", "third")]


@pytest.fixture(scope="module")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    with zookeeper_server(tmp_path_factory.mktemp("zookeeper")) as server:
        yield server


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not come true within {seconds} s"
        await asyncio.sleep(0.02)


class Site:
    """A client that submits tasks, and the workers that run them."""

    def __init__(self, folder: Path, zookeeper: ZooKeeperServer, redis: RedisServer) -> None:
        self.folder, self.redis = folder, redis
        self.values = settings(
            zookeeper.hosts,
            1,
            zookeeper={"chroot": f"/{uuid4()}", "session_timeout": SESSION},
            redis={"url": redis.url},
            plugins={"directories": [str(PLUGIN)], "disabled": BUILT_IN},
        )
        self.workers: dict[str, Daemon] = {}
        self.context: Context
        (folder / "world").mkdir()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        built, declared = registry.start(self.values)
        self.context = make_context(Role.API, built, declared, tree(built), SystemClock())
        await self.context.store.open()
        try:
            async with open_components(self.context):
                yield
        finally:
            await self.context.store.close()
            for worker in self.workers.values():
                await asyncio.to_thread(worker.stop)
        for worker in self.workers.values():
            worker.has_not_stumbled()

    async def start(self, name: str = "one") -> Daemon:
        """Start a worker, or start it again."""
        worker = self.workers.setdefault(name, Daemon(self.folder / name, self.values, "pvcd", "worker"))
        lines = worker.log.count("takes tasks")
        worker.launch()
        await until(lambda: worker.log.count("takes tasks") > lines)
        return worker

    async def stop(self, name: str = "one", how: signal.Signals = signal.SIGTERM) -> int | None:
        return await asyncio.to_thread(self.workers[name].stop, how)

    async def submit(self, subject: str = "x") -> Task:
        return await tasks.submit(self.context, "build", subject, {"directory": str(self.folder / "world")})

    def hold(self, what: str) -> Path:
        """Let a step wait until this file is removed."""
        path = self.folder / "world" / f"hold {what}"
        path.touch()
        return path

    def notes(self) -> list[str]:
        path = self.folder / "world" / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def things(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "world").glob("?-*"))

    def task(self, id: UUID) -> Task:
        task = self.context.store.get(Task, id)
        assert task
        return task

    async def ended(self, id: UUID, seconds: float = 60.0) -> Task:
        await until(lambda: self.task(id).is_over, seconds)
        assert await self.context.store.read(Claim, id) is None
        assert await self.context.store.read(TaskSubject, "build", self.task(id).subject) is None
        return self.task(id)

    async def log(self, id: UUID) -> list[str]:
        return [line.text for line in await self.context[tasks.TASK_LOGS].read(id)]


@pytest.fixture
async def site(tmp_path: Path, zookeeper: ZooKeeperServer, redis: RedisServer) -> AsyncIterator[Site]:
    site = Site(tmp_path, zookeeper, redis)
    async with site.open():
        yield site


async def test_a_task_is_run_and_its_log_can_be_followed(site: Site) -> None:
    await site.start()
    task = await site.submit()
    lines = [line.text async for line in tasks.follow(site.context, task.id)]
    assert (await site.ended(task.id)).state == "success"
    assert site.things() == ["x-first", "x-second", "x-third"]
    assert lines == [
        line for name in ("first", "second", "third") for line in (f"made x-{name}", f"The {name} step: changed. Made.")
    ]


async def test_ten_concurrent_tasks_succeed(site: Site) -> None:
    await asyncio.gather(site.start("one"), site.start("two"))
    submitted = await asyncio.gather(*(site.submit(str(number)) for number in range(10)))
    for task in submitted:
        assert (await site.ended(task.id)).state == "success"
    assert len(site.notes()) == len(set(site.notes())) == 30


@pytest.mark.parametrize("name", ["first", "second", "third"])
async def test_the_next_worker_undoes_the_task_of_a_killed_one(site: Site, name: str) -> None:
    site.hold(f"make {name}")
    await site.start()
    task = await site.submit()
    await until(lambda: f"make x-{name}" in site.notes())
    await site.stop(how=signal.SIGKILL)
    assert site.things() != []
    await site.start()
    task = await site.ended(task.id, 5)
    assert (task.state, task.sentence) == ("failure", f"The {name} step: The task worker died or lost ZooKeeper.")
    assert (site.things(), task.leftovers) == ([], ())


async def test_a_task_is_undone_after_two_killed_workers(site: Site) -> None:
    make, unmake = site.hold("make second"), site.hold("unmake first")
    await site.start()
    task = await site.submit()
    await until(lambda: "make x-second" in site.notes())
    await site.stop(how=signal.SIGKILL)
    make.unlink()
    await site.start()
    await until(lambda: "unmake x-first" in site.notes())
    await site.stop(how=signal.SIGKILL)
    unmake.unlink()
    await site.start()
    assert (await site.ended(task.id)).state == "failure"
    assert site.things() == []


async def test_a_task_runs_even_if_redis_has_lost_it(site: Site) -> None:
    task = await site.submit()
    with site.redis.client() as client:
        await until(lambda: client.exists("pvcd:tasks"))
        client.flushall()
    await site.start()
    assert (await site.ended(task.id)).state == "success"
    with site.redis.client() as client:
        client.flushall()
    assert (await site.ended((await site.submit("y")).id)).state == "success"


async def test_a_task_runs_once_despite_repeated_messages(site: Site) -> None:
    held = site.hold("make second")
    await asyncio.gather(site.start("one"), site.start("two"))
    task = await site.submit()
    for _ in range(10):
        site.context[TASK_QUEUE].wake(task.id)
    await until(lambda: "make x-second" in site.notes())
    held.unlink()
    await site.ended(task.id)
    site.context[TASK_QUEUE].wake(task.id)
    assert (await site.ended((await site.submit("y")).id)).state == "success"
    assert site.notes()[:3] == MADE
    assert len(site.notes()) == 6


@pytest.mark.alone
async def test_a_stopped_worker_undoes_its_tasks_and_takes_no_more(site: Site) -> None:
    site.hold("make second")
    worker = await site.start()
    running = [await site.submit("x"), await site.submit("y")]
    await until(lambda: {"make x-second", "make y-second"} <= set(site.notes()))
    waiting = await site.submit("z")
    begun = time.monotonic()
    assert await site.stop() == 0
    assert time.monotonic() - begun < 5, worker.log
    for each in running:
        task = await site.ended(each.id, 1)
        assert (task.state, task.sentence) == ("failure", "The second step: The task worker was stopped.")
    assert (site.things(), site.task(waiting.id).state) == ([], "pending")


@pytest.mark.alone
async def test_a_worker_stopped_twice_ends_at_once(site: Site) -> None:
    make, unmake = site.hold("make second"), site.hold("unmake second")
    worker = await site.start()
    task = await site.submit()
    await until(lambda: "make x-second" in site.notes())
    os.kill(worker.pid, signal.SIGTERM)
    await until(lambda: "unmake x-second" in site.notes())
    begun = time.monotonic()
    assert await site.stop() == 0
    assert time.monotonic() - begun < 5, worker.log
    assert not site.task(task.id).is_over
    make.unlink(), unmake.unlink()
    await site.start()
    assert (await site.ended(task.id)).sentence == "The second step: The task worker was stopped."
    assert site.things() == []


@pytest.mark.alone
async def test_a_worker_that_waits_for_messages_ends_at_once(site: Site) -> None:
    await site.start()
    begun = time.monotonic()
    assert await site.stop() == 0
    assert time.monotonic() - begun < 3


@pytest.mark.alone
async def test_a_task_is_cancelled_wherever_its_worker_is(site: Site) -> None:
    site.hold("make second")
    await site.start()
    task = await site.submit()
    await until(lambda: "make x-second" in site.notes())
    await tasks.cancel(site.context, task.id)
    task = await site.ended(task.id, 2)
    assert (task.state, site.things()) == ("cancelled", [])


async def test_a_paused_worker_does_not_continue_a_lost_task(site: Site) -> None:
    held = site.hold("make second")
    one = await site.start("one")
    task = await site.submit()
    await until(lambda: "make x-second" in site.notes())
    os.kill(one.pid, signal.SIGSTOP)
    try:
        await site.start("two")
        task = await site.ended(task.id)
        assert (task.state, site.things()) == ("failure", [])
        held.unlink()
    finally:
        os.kill(one.pid, signal.SIGCONT)
    await until(
        lambda: "is left for the next worker to undo" in one.log or "is lost: another worker may claim it" in one.log
    )
    again = await site.submit("y")
    assert (await site.ended(again.id)).state == "success"
    assert site.task(task.id).version == task.version
    assert [note for note in site.notes() if "x-" in note] == [*MADE[:2], "unmake x-second", "unmake x-first"]


@pytest.mark.alone
async def test_tasks_run_without_redis(site: Site) -> None:
    site.redis.stop()
    try:
        worker = await site.start()
        task = await site.submit()
        assert (await site.ended(task.id)).state == "success"
        begun = time.monotonic()
        assert await site.stop() == 0
        assert time.monotonic() - begun < 8
        assert worker.log.count("Redis did not answer") == 1
    finally:
        site.redis.start()


async def test_a_worker_survives_a_hanging_redis(site: Site) -> None:
    worker = await site.start()
    site.redis.pause()
    try:
        first = await site.submit()
        assert (await site.ended(first.id)).state == "success"
    finally:
        site.redis.resume()
    second = await site.submit("y")
    assert (await site.ended(second.id)).state == "success"
    worker.has_not_stumbled()


async def test_a_worker_without_zookeeper_stops_acting_and_undoes_later(site: Site, zookeeper: ZooKeeperServer) -> None:
    held = site.hold("make second")
    worker = await site.start()
    task = await site.submit()
    await until(lambda: "make x-second" in site.notes())
    await asyncio.to_thread(zookeeper.stop)
    try:
        await until(lambda: "is left for the next worker to undo" in worker.log)
        held.unlink()
    finally:
        await asyncio.to_thread(zookeeper.start)
    task = await site.ended(task.id)
    assert (task.state, site.things()) == ("failure", [])
    assert site.notes() == [*MADE[:2], "unmake x-second", "unmake x-first"]


# The queue by itself


class Listener:
    """A listener for tasks."""

    def __init__(self, url: str) -> None:
        self.queue = DramatiqQueue(url)
        self.heard: list[UUID] = []
        self.most = self.now = 0
        self.go = asyncio.Event()

    async def attend(self, id: UUID) -> None:
        self.heard.append(id)
        self.now += 1
        self.most = max(self.most, self.now)
        await self.go.wait()
        self.now -= 1

    @contextlib.asynccontextmanager
    async def listening(self, threads: int = 2) -> AsyncIterator[None]:
        try:
            async with self.queue.listen(self.attend, threads):
                yield
        finally:
            self.go.set()
            await self.queue.aclose()


async def waking(redis: RedisServer, act: Callable[[DramatiqQueue], Awaitable[Any]]) -> None:
    queue = DramatiqQueue(redis.url)
    try:
        await act(queue)
    finally:
        await queue.aclose()


async def test_each_wake_message_reaches_one_worker(redis: RedisServer) -> None:
    one, two = Listener(redis.url), Listener(redis.url)
    one.go.set(), two.go.set()
    ids = {uuid4() for _ in range(20)}

    async def wake(queue: DramatiqQueue) -> None:
        for id in ids:
            queue.wake(id)
        await until(lambda: len(one.heard) + len(two.heard) >= 20)

    async with one.listening(), two.listening():
        await waking(redis, wake)
    assert sorted([*one.heard, *two.heard]) == sorted(ids)


async def test_the_number_of_tasks_a_worker_fetches_at_once_is_limited(redis: RedisServer) -> None:
    listener = Listener(redis.url)

    async def wake(queue: DramatiqQueue) -> None:
        for _ in range(9):
            queue.wake(uuid4())
        await until(lambda: listener.now == 3)
        listener.go.set()
        await until(lambda: len(listener.heard) == 9)

    async with listener.listening(threads=3):
        await waking(redis, wake)
    assert listener.most == 3
