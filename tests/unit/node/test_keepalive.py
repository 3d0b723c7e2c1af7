"""The keepalive: a node registers, publishes its report, and never waits for its facts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from pvcd import Context, Failed, NodeFact, Put
from pvcd.clock import settle
from pvcd.testing import SimulatedCluster
from pvcd_plugins.node.keepalive import KEEPALIVE
from pvcd_plugins.node.records import DaemonState, Node, NodeReport
from tests.unit.conftest import plugin


class Facts:
    """A fact whose value, delay and error a test sets."""

    def __init__(self) -> None:
        self.value: Any = 1
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def read(self, context: Context) -> Any:
        await self.gate.wait()
        if self.error:
            raise self.error
        return self.value


@pytest.fixture
def fact() -> Facts:
    return Facts()


Start = Callable[..., AbstractAsyncContextManager[SimulatedCluster]]


@pytest.fixture
def start(fact: Facts) -> Start:
    def start(*nodes: str, **sections: Any) -> SimulatedCluster:
        module = plugin(node_facts=[NodeFact("steered", fact.read)])
        return SimulatedCluster(nodes, [module], without=["vm"], **({"keepalive": {"interval": 1}} | sections))

    return start


def report(cluster: SimulatedCluster, name: str = "hv1") -> NodeReport:
    found = cluster.api.store.get(NodeReport, name)
    assert found is not None
    return found


async def test_a_node_registers_itself_and_then_runs(start: Start) -> None:
    async with start("hv1", node={"coordinator": False}) as cluster:
        node = cluster.api.store.get(Node, "hv1")
        assert node is not None
        assert (node.coordinator, node.generation) == (False, 0)
        assert report(cluster).daemon_state is DaemonState.RUN


async def test_the_report_is_published_at_each_interval(start: Start) -> None:
    async with start("hv1") as cluster:
        before = report(cluster).updated
        await cluster.advance(3)
        assert report(cluster).updated == pytest.approx(before + 3, abs=1)


async def test_an_orderly_end_is_reported(start: Start) -> None:
    async with start("hv1") as cluster:
        await cluster.stop_agent("hv1")
        assert report(cluster).daemon_state is DaemonState.STOP


async def test_a_restart_keeps_the_generations(start: Start) -> None:
    async with start("hv1") as cluster:
        await cluster.request("POST", "/api/v1/node/hv1/domain-state", **{"domain-state": "flush"})
        await cluster.advance(2)
        assert report(cluster).settled_generation == 1
        await cluster.stop_agent("hv1")
        await cluster.start_agent("hv1")
        node = cluster.api.store.get(Node, "hv1")
        assert node is not None
        assert (node.generation, report(cluster).settled_generation) == (1, 1)


async def test_the_coordinator_setting_is_written_at_start(start: Start) -> None:
    async with start("hv1") as cluster:
        await cluster.stop_agent("hv1")
        node = cluster.api.store.get(Node, "hv1")
        assert node is not None
        await cluster.api.store.write(Put(node.changed(coordinator=False)))
        await cluster.start_agent("hv1")
        node = cluster.api.store.get(Node, "hv1")
        assert node is not None
        assert node.coordinator


async def test_facts_are_published(start: Start, fact: Facts) -> None:
    async with start("hv1") as cluster:
        await cluster.advance(2)
        assert report(cluster).facts["steered"] == 1
        assert report(cluster).facts["machine"]["cpu_count"] > 0
        fact.value = {"a": [2]}
        await cluster.advance(3)
        assert report(cluster).facts["steered"] == {"a": [2]}


async def test_a_fact_that_hangs_keeps_its_last_value_and_delays_nothing(start: Start, fact: Facts) -> None:
    async with start("hv1") as cluster:
        await cluster.advance(2)
        fact.gate.clear()
        fact.value = 2
        before = report(cluster).updated
        await cluster.advance(10)
        assert report(cluster).facts["steered"] == 1
        assert report(cluster).updated >= before + 9


@pytest.mark.parametrize("error", [Failed("libvirt is away."), RuntimeError("oh")])
async def test_a_fact_that_fails_keeps_its_last_value(start: Start, fact: Facts, error: Exception) -> None:
    async with start("hv1") as cluster:
        await cluster.advance(2)
        fact.error = error
        await cluster.advance(3)
        assert report(cluster).facts["steered"] == 1
        fact.error, fact.value = None, 2
        await cluster.advance(3)
        assert report(cluster).facts["steered"] == 2


async def test_the_keepalive_survives_a_store_that_is_away(start: Start) -> None:
    async with start("hv1") as cluster:
        cluster.server.stop()
        await cluster.advance(10)
        cluster.server.start()
        await cluster.advance(2)
        assert report(cluster).updated >= cluster.clock.time() - 1.5


async def test_a_published_value_is_repeated(start: Start) -> None:
    async with start("hv1") as cluster:
        await cluster.agents["hv1"][KEEPALIVE].publish(remaining=("web1",))
        await cluster.advance(3)
        assert report(cluster).remaining == ("web1",)


async def test_each_node_writes_its_own_report(start: Start) -> None:
    async with start("hv1", "hv2") as cluster:
        await cluster.kill_agent("hv2")
        await cluster.advance(5)
        await settle()
        assert report(cluster, "hv1").updated > report(cluster, "hv2").updated
        assert report(cluster, "hv2").daemon_state is DaemonState.RUN, "only the node itself may change it"
