"""The contract of task logs, in memory and in Redis; and the behavior while Redis is unavailable."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from uuid import UUID, uuid4

import pytest

from pvcd.clock import SystemClock, VirtualClock, settle
from pvcd.errors import Failed, Invalid
from pvcd.tasks import redis_logs
from pvcd.tasks.following import LOOK_SECONDS, READERS_BEHIND, RECENT_LINES, LogFeeds
from pvcd.tasks.logs import (
    KEPT_SECONDS,
    MAX_BYTES,
    MAX_LINE_BYTES,
    MAX_LINES,
    MAX_READ_LINES,
    LogLine,
    MemoryLogs,
    TaskLogs,
)
from pvcd.tasks.redis_logs import RedisLogs
from tests.contract.redis_server import RedisServer, redis_server


class Bench:
    """Logs, and what can be asked of them beside the door."""

    logs: TaskLogs

    async def seconds_left(self, id: UUID) -> float:
        """How long a log is kept after its last line."""
        raise NotImplementedError


class MemoryBench(Bench):
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.logs = MemoryLogs(self.clock)

    async def seconds_left(self, id: UUID) -> float:
        begun = self.clock.time()
        while await self.logs.read(id):
            await self.clock.advance(3600)
        return self.clock.time() - begun


class RedisBench(Bench):
    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.logs: RedisLogs = RedisLogs(server.url, SystemClock())

    async def seconds_left(self, id: UUID) -> float:
        with self.server.client() as client:
            return float(client.ttl(f"pvcd:task-log:{id}"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def real(server: RedisServer) -> AsyncIterator[RedisBench]:
    bench = RedisBench(server)
    yield bench
    await bench.logs.aclose()


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "memory":
        yield MemoryBench()
        return
    bench = RedisBench(request.getfixturevalue("server"))
    yield bench
    await bench.logs.aclose()


@pytest.fixture
def logs(bench: Bench) -> TaskLogs:
    return bench.logs


async def texts(logs: TaskLogs, id: UUID, after: str = "") -> list[str]:
    return [line.text for line in await logs.read(id, after)]


async def everything(logs: TaskLogs, id: UUID) -> list[str]:
    """All lines, however many readings that takes."""
    found: list[str] = []
    after = ""
    while lines := await logs.read(id, after):
        found.extend(line.text for line in lines)
        after = lines[-1].position
    return found


async def test_a_missing_log_is_empty(logs: TaskLogs) -> None:
    assert await logs.read(uuid4()) == []


async def test_lines_are_read_in_order(logs: TaskLogs) -> None:
    id = uuid4()
    await logs.append(id, ["one", "", "zwei é"])
    await logs.append(id, [])
    await logs.append(id, ["three"])
    lines = await logs.read(id)
    assert [line.text for line in lines] == ["one", "", "zwei é", "three"]
    assert len({line.position for line in lines}) == 4
    assert sorted(line.time for line in lines) == [line.time for line in lines]


async def test_reading_continues_after_a_line(logs: TaskLogs) -> None:
    id = uuid4()
    await logs.append(id, [str(number) for number in range(10)])
    first = await logs.read(id, count=4)
    assert [line.text for line in first] == ["0", "1", "2", "3"]
    assert await texts(logs, id, first[-1].position) == ["4", "5", "6", "7", "8", "9"]
    last = (await logs.read(id))[-1].position
    assert await logs.read(id, last) == []
    await logs.append(id, ["more"])
    assert await texts(logs, id, last) == ["more"]


async def test_logs_are_separate(logs: TaskLogs) -> None:
    one, other = uuid4(), uuid4()
    await logs.append(one, ["one"])
    await logs.append(other, ["other"])
    assert (await texts(logs, one), await texts(logs, other)) == (["one"], ["other"])


@pytest.mark.parametrize("wrong", ["x", "1", "-", "+", "1-1-1", "$", "(1-1", "1-1\n", "9" * 30 + "-0"])
async def test_an_invalid_position_is_refused(logs: TaskLogs, wrong: str) -> None:
    with pytest.raises(Invalid, match="after must be the position of a line"):
        await logs.read(uuid4(), wrong)


async def test_a_long_line_is_truncated(logs: TaskLogs) -> None:
    id = uuid4()
    await logs.append(id, ["x" * 3 * MAX_LINE_BYTES, "é" * MAX_LINE_BYTES, "\ud800"])
    assert await texts(logs, id) == ["x" * MAX_LINE_BYTES, "é" * (MAX_LINE_BYTES // 2), "?"]


async def test_the_last_of_many_lines_are_kept(logs: TaskLogs) -> None:
    id = uuid4()
    for start in range(0, MAX_LINES + 3000, 1000):
        await logs.append(id, [str(number) for number in range(start, start + 1000)])
    kept = await everything(logs, id)
    assert MAX_LINES <= len(kept) <= MAX_LINES * 1.05
    assert kept == [str(number) for number in range(MAX_LINES + 3000 - len(kept), MAX_LINES + 3000)]


async def test_the_last_of_many_lines_written_at_once_are_kept(logs: TaskLogs) -> None:
    id = uuid4()
    await logs.append(id, [str(number) for number in range(3 * MAX_LINES)])
    assert (await everything(logs, id))[-1] == str(3 * MAX_LINES - 1)


async def test_as_many_long_lines_are_kept_as_fit(logs: TaskLogs) -> None:
    id = uuid4()
    for number in range(30):
        await logs.append(id, [f"{number} {'x' * MAX_LINE_BYTES}"] * 100)
    kept = await everything(logs, id)
    assert MAX_BYTES / 3 < sum(map(len, kept)) <= MAX_BYTES * 1.1
    assert kept[-1].startswith("29 ")


async def test_a_log_expires(bench: Bench) -> None:
    id = uuid4()
    await bench.logs.append(id, ["one"])
    assert KEPT_SECONDS - 60 < await bench.seconds_left(id) < KEPT_SECONDS + 3700


# Followers


class Followers:
    """Clients that follow logs in one process, and how often it reads the logs for them."""

    def __init__(self, logs: TaskLogs) -> None:
        self.over, self.reads, self.most_at_once, self._at_once = False, 0, 0, 0
        self._logs = logs
        self.clock = VirtualClock()
        self.feeds = LogFeeds(self, self.clock)

    async def append(self, id: UUID, lines: Sequence[str]) -> None:
        await self._logs.append(id, lines)

    async def read(self, id: UUID, after: str = "", count: int = MAX_READ_LINES) -> list[LogLine]:
        self.reads, self._at_once = self.reads + 1, self._at_once + 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._logs.read(id, after, count)
        finally:
            self._at_once -= 1

    def start(self, id: UUID, after: str = "", into: list[str] | None = None) -> asyncio.Task[list[str]]:
        """Follow a log to its end."""
        found: list[str] = [] if into is None else into

        async def follow() -> list[str]:
            async for line in self.feeds.follow(id, after, lambda: self.over):
                found.append(line.text)
            return found

        return asyncio.ensure_future(follow())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until a condition holds."""
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.001)
                await self.clock.advance(LOOK_SECONDS)


@pytest.fixture
def followers(logs: TaskLogs) -> Followers:
    return Followers(logs)


async def test_150_followers_of_a_log_are_one_reader(followers: Followers) -> None:
    id, found = uuid4(), [list[str]() for _ in range(150)]
    await followers.append(id, ["one", "two"])
    tasks = [followers.start(id, into=each) for each in found]
    await followers.until(lambda: all(len(each) == 2 for each in found))
    reads = followers.reads
    await followers.append(id, ["three"])
    await followers.until(lambda: all(len(each) == 3 for each in found))
    followers.over = True
    await followers.until(lambda: all(task.done() for task in tasks))
    assert found == [["one", "two", "three"]] * 150
    assert followers.most_at_once == 1
    assert reads < 50, "not one for each follower"


async def test_a_follower_who_comes_later_gets_every_line(followers: Followers) -> None:
    id, first = uuid4(), list[str]()
    lines = [str(number) for number in range(RECENT_LINES + 1500)]
    for start in range(0, len(lines), 500):
        await followers.append(id, lines[start : start + 500])
    tasks = [followers.start(id, into=first)]
    await followers.until(lambda: len(first) == len(lines))
    tasks += [followers.start(id) for _ in range(20)]
    position = (await followers.read(id, count=700))[-1].position
    later = followers.start(id, position)
    await followers.append(id, ["more"])
    await followers.until(lambda: len(first) == len(lines) + 1)
    followers.over = True
    await followers.until(lambda: later.done() and all(task.done() for task in tasks))
    assert all(task.result() == [*lines, "more"] for task in tasks)
    assert later.result() == [*lines[700:], "more"]
    assert followers.most_at_once <= READERS_BEHIND + 2


async def test_a_follower_of_a_position_after_the_end_takes_no_line_from_others(followers: Followers) -> None:
    id, found = uuid4(), list[str]()
    await followers.append(id, ["one"])
    ahead = followers.start(id, f"{10**18}-0")
    await settle()
    tasks = [followers.start(id, into=found), *(followers.start(id) for _ in range(10))]
    await followers.until(lambda: found == ["one"])
    await followers.append(id, ["two"])
    await followers.until(lambda: found == ["one", "two"])
    followers.over = True
    await followers.until(lambda: ahead.done() and all(task.done() for task in tasks))
    assert ahead.result() == []
    assert all(task.result() == ["one", "two"] for task in tasks)


async def test_a_log_is_forgotten_with_its_last_follower(followers: Followers) -> None:
    id = uuid4()
    await followers.append(id, ["one"])
    found = list[str]()
    task = followers.start(id, into=found)
    await followers.until(lambda: found == ["one"])
    assert len(followers.feeds._feeds) == 1
    task.cancel()
    await asyncio.wait([task])
    del task

    def is_forgotten() -> bool:
        gc.collect()  # not once only: the loop may still hold the task, or have to close what was forgotten
        return not followers.feeds._feeds

    await followers.until(is_forgotten)


async def test_all_followers_hear_that_redis_died_and_later_ones_follow_again(real: RedisBench) -> None:
    followers, id, found = Followers(real.logs), uuid4(), [list[str]() for _ in range(30)]
    await followers.append(id, ["before"])
    tasks = [followers.start(id, into=each) for each in found]
    await followers.until(lambda: all(found))
    real.server.stop()
    try:
        await followers.until(lambda: all(task.done() for task in tasks))
    finally:
        real.server.start()
    failures = [task.exception() for task in tasks]
    assert {failure.code for failure in failures if isinstance(failure, Failed)} == {"redis-unavailable"}
    assert None not in failures
    real.logs._pause_ends = 0.0
    await followers.append(id, ["after"])
    followers.over = True
    again = followers.start(id)
    await followers.until(again.done)
    assert again.result() == ["after"]


# Redis away


async def test_300_readers_at_once_share_a_few_connections(real: RedisBench) -> None:
    id = uuid4()
    await real.logs.append(id, ["one"])
    assert await asyncio.gather(*(texts(real.logs, id) for _ in range(300))) == [["one"]] * 300
    with real.server.client() as client:
        assert len(client.client_list()) <= redis_logs.MAX_CONNECTIONS + 1


async def test_lines_are_dropped_while_redis_is_unavailable_and_a_warning_is_logged_once(
    real: RedisBench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = uuid4()
    await real.logs.append(id, ["before"])
    real.server.stop()
    with caplog.at_level(logging.INFO):
        for number in range(100):
            await real.logs.append(id, [str(number)])
        monkeypatch.setattr(real.logs, "_pause_ends", 0.0)
        await real.logs.append(id, ["still away"])
        with pytest.raises(Failed) as caught:
            await real.logs.read(id)
        assert caught.value.code == "redis-unavailable"
        real.server.start()
        monkeypatch.setattr(real.logs, "_pause_ends", 0.0)
        await real.logs.append(id, ["after"])
    assert await texts(real.logs, id) == ["after"]
    said = [record.levelname for record in caplog.records]
    assert said == ["WARNING", "INFO"]


async def test_a_restarted_redis_is_available(real: RedisBench, caplog: pytest.LogCaptureFixture) -> None:
    ids = uuid4(), uuid4()
    await real.logs.append(ids[0], ["before"])
    real.server.stop(), real.server.start()
    assert await texts(real.logs, ids[0]) == []
    real.server.stop(), real.server.start()
    await real.logs.append(ids[1], ["after"])
    assert await texts(real.logs, ids[1]) == ["after"]
    assert caplog.records == []


async def test_a_hanging_redis_does_not_block_for_long(real: RedisBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_logs, "DEADLINE_SECONDS", 0.3)
    id = uuid4()
    await real.logs.append(id, ["before"])
    real.server.pause()
    try:
        async with asyncio.timeout(2):
            for number in range(1000):
                await real.logs.append(id, [str(number)])
            with pytest.raises(Failed):
                await real.logs.read(id)
    finally:
        real.server.resume()
    monkeypatch.setattr(real.logs, "_pause_ends", 0.0)
    await real.logs.append(id, ["after"])
    assert (await texts(real.logs, id))[-1] == "after"
