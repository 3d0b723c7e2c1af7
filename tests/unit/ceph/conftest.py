"""Three nodes with an OSD each on one Ceph in memory, behind a door that a test can hold, break and inspect."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from pvcd import Context, Guard
from pvcd.testing import Reply, SimulatedCluster, opened
from pvcd_plugins.ceph.cluster import CephUnavailable
from pvcd_plugins.ceph.cluster.fake import FakeCluster, FakeOsdHost
from pvcd_plugins.ceph.components import CLUSTER, OSD_HOST
from pvcd_plugins.node.service import NodeReport
from tests.unit.conftest import plugin

REFRESH = 10.0
NODES = ("hv1", "hv2", "hv3")


class Held:
    """Calls that wait before or after their work."""

    def __init__(self) -> None:
        self.waiting = 0
        self._released = asyncio.Event()

    async def wait(self) -> None:
        self.waiting += 1
        await self._released.wait()

    def release(self) -> None:
        self._released.set()


class Door:
    """The door to a Ceph, which a test controls."""

    def __init__(self, ceph: FakeCluster) -> None:
        self.away = False
        self.calls: list[str] = []
        self.answers: dict[str, Any] = {}
        """Answers instead of those of Ceph: values, or functions of the arguments; None means that of Ceph."""
        self.failing: dict[str, Callable[..., Exception | None]] = {}
        self._ceph = ceph
        self._before: dict[str, Held] = {}
        self._after: dict[str, Held] = {}

    def hold(self, verb: str) -> Held:
        """Hold calls of a verb before their work."""
        return self._before.setdefault(verb, Held())

    def hold_answer(self, verb: str) -> Held:
        """Hold calls of a verb after their work."""
        return self._after.setdefault(verb, Held())

    def __getattr__(self, verb: str) -> Any:
        async def call(*args: Any, **more: Any) -> Any:
            self.calls.append(verb)
            if self.away:
                raise CephUnavailable("Ceph did not answer within 30 s.")
            if verb in self._before:
                await self._before[verb].wait()
            error = self.failing[verb](*args) if verb in self.failing else None
            if error is not None:
                raise error
            answer = self.answers.get(verb)
            answer = answer(*args) if callable(answer) else answer
            result = answer if answer is not None else await getattr(self._ceph, verb)(*args, **more)
            if verb in self._after:
                await self._after[verb].wait()
            return result

        return call


class Storage:
    """The cluster of a test."""

    def __init__(self, guards: Iterable[Guard] = ()) -> None:
        self.ceph = FakeCluster()
        self.door = Door(self.ceph)
        self.hosts = {node: FakeOsdHost(self.ceph, node, self.devices(node)) for node in NODES}
        self.cluster = SimulatedCluster(
            NODES,
            [plugin(guards=guards)],
            without=["vm"],
            replace={
                CLUSTER: lambda context: opened(self.door),
                OSD_HOST: lambda context: opened(self.hosts[context.node]),
            },
            keepalive={"interval": 1},
            ceph={"refresh_seconds": REFRESH},
        )

    async def prepare(self) -> None:
        """Add an OSD on each node, and a pool."""
        for node in NODES:
            await self.hosts[node].prepare_osd(self.devices(node)[0], 1.0)
        await self.ceph.create_pool("vms", 8, 1, 1)

    @staticmethod
    def devices(node: str) -> list[str]:
        """Return the devices of a node, of which the first is in use."""
        return [f"/dev/{node}/first", f"/dev/{node}/second"]

    @property
    def context(self) -> Context:
        """Return the context of the API."""
        return self.cluster.api

    async def refresh(self) -> None:
        """Let the primary refresh the mirror."""
        await self.cluster.advance(REFRESH + 0.1)

    async def ask(self, method: str, path: str, /, **values: Any) -> Reply:
        """Send a request below /storage/ceph and let time pass until it is answered."""
        return await self._ask(30.0, method, path, values)

    async def ask_long(self, method: str, path: str, /, **values: Any) -> Reply:
        """Send a request that may take long."""
        return await self._ask(1000.0, method, path, values)

    async def _ask(self, patience: float, method: str, path: str, values: dict[str, Any]) -> Reply:
        asking = asyncio.ensure_future(self.cluster.request(method, f"/api/v1/storage/ceph{path}", **values))
        end = self.cluster.clock.time() + patience
        while not asking.done() and self.cluster.clock.time() < end:
            await self.cluster.advance(0.05)
        assert asking.done(), f"it took longer than {patience} s"
        return asking.result()

    async def get(self, path: str) -> Any:
        """Return a reply that comes at once."""
        reply = await self.cluster.request("GET", f"/api/v1/storage/ceph{path}")
        assert reply.status == 200, reply.body
        return reply.json

    async def make(self, pool: str, volume: str, size: str = "1G") -> None:
        """Add a volume through the API."""
        reply = await self.ask("POST", "/volume", pool=pool, volume=volume, size=size)
        assert reply.status == 200, reply.body

    def report(self, node: str) -> NodeReport:
        """Return the report of a node."""
        report = self.context.store.get(NodeReport, node)
        assert report is not None
        return report


@contextlib.asynccontextmanager
async def storage_of(guards: Iterable[Guard] = ()) -> AsyncIterator[Storage]:
    """Run a cluster whose mirror has the pool `vms` and three OSDs."""
    storage = Storage(guards)
    await storage.prepare()
    async with storage.cluster:
        await storage.refresh()
        yield storage


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    """Run the cluster of most tests."""
    async with storage_of() as storage:
        yield storage
