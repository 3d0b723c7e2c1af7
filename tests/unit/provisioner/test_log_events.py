"""The log of a build as server-sent events: the last event says whether it is complete."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from pvcd import TASK_LOGS, Failed, Invalid
from pvcd.store import Create
from pvcd.tasks.logs import LogLine
from pvcd.tasks.records import Task
from pvcd.testing import SimulatedCluster, opened
from pvcd_plugins.provisioner import service
from pvcd_plugins.provisioner.service.blueprint import KIND


class Logs:
    """A log of one line, which is read once."""

    is_broken = False

    async def read(self, id: UUID, after: str = "") -> list[LogLine]:
        if after and self.is_broken:
            raise Failed("Cannot read the log of the task: Redis did not answer.", code="redis-unavailable")
        return [] if after else [LogLine("1-1", 1.0, "made")]


LINE = b'id: 1-1\ndata: {"position":"1-1","time":1.0,"text":"made"}\n\n'


async def test_the_last_event_says_how_the_log_ended() -> None:
    logs = Logs()
    async with SimulatedCluster(nodes=[], replace={TASK_LOGS: lambda _: opened(logs)}) as cluster:
        task = Task(id=uuid4(), kind=KIND, subject="web1", values={}, created=0.0, steps=(), state="success")
        await cluster.api.store.write(Create(task))
        events = [event async for event in await service.follow_log(cluster.api, str(task.id), "")]
        assert events == [LINE, b"event: end\ndata: {}\n\n"]
        logs.is_broken = True
        events = []
        with pytest.raises(Failed):
            async for event in await service.follow_log(cluster.api, str(task.id), ""):
                events.append(event)
        said = b'{"message":"Cannot read the log of the task: Redis did not answer.","code":"redis-unavailable"}'
        assert events == [LINE, b"event: error\ndata: " + said + b"\n\n"]
        with pytest.raises(Invalid, match="after must be the position of a line"):
            await service.follow_log(cluster.api, str(task.id), "x")
