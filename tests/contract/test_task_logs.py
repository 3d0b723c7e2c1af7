"""The contract of task logs, in memory and in Redis; and the behavior while Redis is unavailable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import pytest

from pvcd.clock import SystemClock, VirtualClock
from pvcd.errors import Failed, Invalid
from pvcd.tasks import redis_logs
from pvcd.tasks.logs import KEPT_SECONDS, MAX_BYTES, MAX_LINE_BYTES, MAX_LINES, MemoryLogs, TaskLogs
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


# Redis away


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
