"""The primary lease: held by one living coordinator, and what a former one writes is refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pvcd import Component, ComponentKey, Context, Create, Handlers, Put, Role
from pvcd.clock import settle
from pvcd.cluster.lease import LEASE, Primary, assign_primary, primary_of
from pvcd.cluster.presence import PRESENCE
from pvcd.errors import Changed, Conflict
from pvcd.store import Check
from pvcd.store.memory import MemoryTree
from pvcd.testing import SimulatedCluster

from .conftest import Thing, plugin

OFFICE: ComponentKey[str] = ComponentKey("office")


class Duties:
    """The acts as primary: the node, and the value of a thing at that time."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.contexts: dict[str, Context] = {}
        self.handlers = Handlers(scope="primary")
        self.handlers.on(Thing)(self.follow)
        self.open: list[str] = []
        self.failures = 0

    @contextlib.asynccontextmanager
    async def office(self, context: Context) -> AsyncIterator[str]:
        """Open while its node is primary."""
        if self.failures:
            self.failures -= 1
            raise OSError("no room")
        self.open.append(context.node)
        try:
            yield "office"
        finally:
            self.open.remove(context.node)

    async def follow(self, context: Context, thing: Thing) -> None:
        self.contexts[context.node] = context
        self.done.append((context.node, thing.value))
        await self.gate.wait()


@pytest.fixture
def duties() -> Duties:
    return Duties()


@pytest.fixture
async def cluster(duties: Duties) -> AsyncIterator[SimulatedCluster]:
    office = Component(OFFICE, duties.office, roles=(Role.PRIMARY,), in_memory=True)
    module = plugin(records=[Thing], handlers=[duties.handlers], components=[office])
    async with SimulatedCluster(["hv1", "hv2"], plugins=[module], without=["node", "vm"]) as cluster:
        await cluster.api.store.write(Create(Thing(name="a")))
        await settle()
        yield cluster


def primary(cluster: SimulatedCluster) -> str | None:
    return primary_of(cluster.api.store)


def tree(cluster: SimulatedCluster, node: str) -> MemoryTree:
    found = cluster.agents[node].store.tree
    assert isinstance(found, MemoryTree)
    return found


async def put(cluster: SimulatedCluster, value: int) -> None:
    thing = cluster.api.store.get(Thing, "a")
    assert thing is not None
    await cluster.api.store.write(Put(thing.changed(value=value)))
    await settle()


def epoch(cluster: SimulatedCluster) -> int:
    lease = cluster.api.store.get(Primary)
    assert lease is not None
    return lease.epoch


async def test_only_the_primary_does_the_duties(cluster: SimulatedCluster, duties: Duties) -> None:
    assert primary(cluster) == "hv1"
    await put(cluster, 1)
    assert duties.done == [("hv1", 0), ("hv1", 1)]


async def test_another_coordinator_takes_over_after_death_of_the_primary(
    cluster: SimulatedCluster, duties: Duties
) -> None:
    await cluster.kill_agent("hv1")
    assert primary(cluster) == "hv2"
    await put(cluster, 1)
    assert duties.done == [("hv1", 0), ("hv2", 0), ("hv2", 1)]


async def test_another_coordinator_takes_over_at_once_after_a_stop_of_the_primary(
    cluster: SimulatedCluster, duties: Duties
) -> None:
    before = epoch(cluster)
    await cluster.stop_agent("hv1")
    assert primary(cluster) == "hv2"
    assert epoch(cluster) == before + 2, "it should be given up once and taken once"


async def test_no_node_is_primary_after_the_last_one_has_stopped(cluster: SimulatedCluster) -> None:
    await cluster.stop_agent("hv2")
    await cluster.stop_agent("hv1")
    lease = cluster.api.store.get(Primary)
    assert lease is not None
    assert lease.node is None


async def test_assigned_lease_is_followed(cluster: SimulatedCluster, duties: Duties) -> None:
    await assign_primary(cluster.api.store, "hv2")
    await settle()
    await put(cluster, 1)
    assert duties.done == [("hv1", 0), ("hv2", 0), ("hv2", 1)]
    assert not cluster.agents["hv1"].components[LEASE].held


async def test_assigning_the_lease_to_its_holder_changes_nothing(cluster: SimulatedCluster) -> None:
    before = epoch(cluster)
    await assign_primary(cluster.api.store, "hv1")
    assert epoch(cluster) == before


async def test_node_that_is_no_coordinator_never_becomes_primary(duties: Duties) -> None:
    module = plugin(records=[Thing], handlers=[duties.handlers])
    cluster = SimulatedCluster(["hv1"], plugins=[module], without=["node", "vm"], node={"coordinator": False})
    async with cluster:
        await cluster.advance(60)
        assert primary(cluster) is None


async def test_writes_of_a_paused_primary_are_refused(cluster: SimulatedCluster, duties: Duties) -> None:
    stale = duties.contexts["hv1"]
    # Paused: it hears of nothing while another takes over.
    tree(cluster, "hv1")._hint = lambda path: None  # type: ignore[method-assign]
    await assign_primary(cluster.api.store, "hv2")
    await settle()
    assert (primary(cluster), primary_of(stale.store)) == ("hv2", "hv1")
    with pytest.raises(Changed):
        await stale.store.write(Create(Thing(name="stale")))
    assert cluster.api.store.get(Thing, "stale") is None
    with pytest.raises(Conflict, match="Cannot write as primary: node 'hv1' has lost the primary lease") as refused:
        await stale.store.write(Create(Thing(name="stale")))
    assert refused.value.code == "lease-lost"


async def test_check_of_an_earlier_lease_is_refused_even_after_its_return(cluster: SimulatedCluster) -> None:
    old = cluster.api.store.get(Primary)
    assert old is not None
    await assign_primary(cluster.api.store, "hv2")
    await assign_primary(cluster.api.store, "hv1")
    with pytest.raises(Changed):
        await cluster.api.store.write(Create(Thing(name="stale")), Check(old))


async def test_only_writes_of_the_primary_carry_the_lease(cluster: SimulatedCluster, duties: Duties) -> None:
    await duties.contexts["hv1"].store.write(Create(Thing(name="b")))
    await cluster.agents["hv2"].store.write(Create(Thing(name="c")))
    with pytest.raises(Conflict):
        cluster.agents["hv2"].components[LEASE].fence()


async def test_duties_begin_no_reconcile_while_the_store_is_away(cluster: SimulatedCluster, duties: Duties) -> None:
    thing = cluster.api.store.get(Thing, "a")
    assert thing is not None
    cluster.server.stop()
    await settle()
    assert not cluster.agents["hv1"].components[PRESENCE].held
    duties.contexts["hv1"].wake(thing)
    await settle()
    assert duties.done == [("hv1", 0)]
    cluster.server.start()
    await settle()
    assert duties.done[1:]
    assert set(duties.done) == {("hv1", 0)}


async def test_primary_that_lost_its_session_and_its_lease_stops(cluster: SimulatedCluster, duties: Duties) -> None:
    old = tree(cluster, "hv1")
    cluster.server.cut(old)
    cluster.server.expire(old.session)
    await cluster.advance(1)
    assert primary(cluster) == "hv2"
    duties.done.clear()
    cluster.server.heal(old)
    await cluster.advance(10)
    await put(cluster, 5)
    assert {node for node, _ in duties.done} == {"hv2"}


async def test_running_reconcile_is_cancelled_when_the_lease_is_lost(cluster: SimulatedCluster, duties: Duties) -> None:
    duties.gate.clear()
    await put(cluster, 1)
    await assign_primary(cluster.api.store, "hv2")
    await settle()
    await put(cluster, 2)
    duties.gate.set()
    await cluster.advance(1)
    assert [value for node, value in duties.done if node == "hv1"] == [0, 1]


async def test_lease_of_a_dead_node_does_not_count(cluster: SimulatedCluster) -> None:
    await assign_primary(cluster.api.store, "hv9")
    assert primary_of(cluster.api.store) is None
    await cluster.advance(1)
    assert primary(cluster) in ("hv1", "hv2")


async def test_only_one_of_many_candidates_gets_a_vacant_lease(duties: Duties) -> None:
    names = [f"hv{number}" for number in range(5)]
    module = plugin(records=[Thing], handlers=[duties.handlers])
    async with SimulatedCluster(names, plugins=[module], without=["node", "vm"]) as cluster:
        for _ in range(3):
            await assign_primary(cluster.api.store, None)
            await cluster.advance(1)
            held: list[Any] = [agent.components[LEASE].held for agent in cluster.agents.values()]
            assert held.count(True) == 1


async def test_components_of_the_primary_are_open_on_the_primary_only(
    cluster: SimulatedCluster, duties: Duties
) -> None:
    assert duties.open == ["hv1"] and duties.contexts["hv1"][OFFICE] == "office"
    await assign_primary(cluster.api.store, "hv2")
    await settle()
    assert duties.open == ["hv2"]
    await cluster.stop_agent("hv2")
    assert duties.open == ["hv1"]


async def test_primary_stays_primary_after_a_short_suspension(cluster: SimulatedCluster, duties: Duties) -> None:
    cluster.server.stop()
    await cluster.advance(1)
    assert duties.open == ["hv1"]
    cluster.server.start()
    await cluster.advance(60)
    assert duties.open == ["hv1"]


async def test_primary_stops_acting_after_a_long_suspension(cluster: SimulatedCluster, duties: Duties) -> None:
    cluster.server.stop()
    await cluster.advance(60)
    assert duties.open == []
    cluster.server.start()
    await cluster.advance(1)
    assert duties.open == ["hv1"]


async def test_failure_to_open_a_component_of_the_primary_is_retried(
    cluster: SimulatedCluster, duties: Duties, caplog: pytest.LogCaptureFixture
) -> None:
    duties.failures = 1
    await assign_primary(cluster.api.store, "hv2")
    await settle()
    assert duties.open == [] and "are begun again" in caplog.text
    await cluster.advance(2)
    assert duties.open == ["hv2"]
