"""PresenceHolder: one living agent of each name, whatever happens to processes and sessions."""

from __future__ import annotations

import asyncio

import pytest

from pvcd import Context, Create, Handlers, Put
from pvcd.clock import settle
from pvcd.cluster.presence import Presence, PresenceHolder
from pvcd.process import ProcessIdentity
from pvcd.store import Store
from pvcd.store.memory import MemoryTree
from pvcd.testing import SimulatedCluster

from .conftest import Bench, Thing, plugin

HERE = ProcessIdentity.current()
ELSEWHERE = ProcessIdentity(boot="another-boot", namespace=1, pid=7, started=7)
DEAD_HERE = HERE.model_copy(update={"started": HERE.started - 1})


class Agent:
    """A presence, and when it was allowed to act."""

    def __init__(self, bench: Bench, store: Store, process: ProcessIdentity, name: str = "hv1") -> None:
        self.bench, self.store = bench, store
        self.changes: list[bool] = []
        self.presence = PresenceHolder(store, bench.clock, name, self.changes.append)
        self.presence._process = process
        self.entering = asyncio.ensure_future(self.presence.enter())

    @property
    def tree(self) -> MemoryTree:
        assert isinstance(self.store.tree, MemoryTree)
        return self.store.tree

    def recorded(self) -> Presence:
        session = self.store.get(Presence, "hv1")
        assert session is not None
        return session


async def start(bench: Bench, process: ProcessIdentity = HERE, name: str = "hv1") -> Agent:
    agent = Agent(bench, await bench.store(), process, name)
    await settle()
    return agent


async def test_an_agent_enters_at_once_where_nobody_is(bench: Bench) -> None:
    agent = await start(bench)
    assert agent.entering.done()
    assert agent.changes == [True]
    session = agent.recorded()
    assert (session.session, session.process, session.since) == (agent.tree.session, HERE, bench.clock.time())


async def test_agents_of_other_names_do_not_matter(bench: Bench) -> None:
    await start(bench, ELSEWHERE, "hv2")
    assert (await start(bench)).presence.held


async def test_a_second_living_agent_of_the_name_waits_and_says_so_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    first = await start(bench, ELSEWHERE)
    second = await start(bench)
    await bench.clock.advance(60)
    assert (first.presence.held, second.presence.held) == (True, False)
    assert caplog.text.count("another agent of node hv1 is alive (process 7): waiting") == 1
    await first.presence.leave()
    await settle()
    assert (first.changes, second.changes) == ([True, False], [True])
    assert second.recorded().process == HERE


async def test_the_second_enters_when_the_session_of_the_first_ends(bench: Bench) -> None:
    first, second = await start(bench, ELSEWHERE), await start(bench)
    bench.server.cut(first.tree)
    bench.server.expire(first.tree.session)
    await settle()
    assert (first.changes, second.changes) == ([True, False], [True])


async def test_the_record_of_a_dead_process_is_replaced_at_once(bench: Bench) -> None:
    first = await start(bench, DEAD_HERE)
    second = await start(bench)
    assert second.presence.held
    assert second.recorded().session == second.tree.session != first.tree.session


async def test_an_earlier_session_of_the_same_process_is_replaced(bench: Bench) -> None:
    first, second = await start(bench), await start(bench)
    assert second.presence.held
    assert second.recorded().session == second.tree.session != first.tree.session


async def test_a_suspension_pauses_and_its_end_allows_again_without_a_write(bench: Bench) -> None:
    agent = await start(bench)
    before = agent.recorded()
    bench.server.stop()
    assert agent.tree.link.value == "suspended"
    await settle()
    assert agent.changes == [True, False]
    bench.server.start()
    await settle()
    assert agent.changes == [True, False, True]
    assert agent.recorded() == before


async def test_after_its_session_expired_an_agent_enters_again_with_a_new_one(bench: Bench) -> None:
    agent, watcher = await start(bench), await bench.store()
    old = agent.tree.session
    bench.server.cut(agent.tree)
    bench.server.expire(old)
    await settle()
    assert watcher.get(Presence, "hv1") is None
    assert agent.changes == [True, False]
    bench.server.heal(agent.tree)
    await settle()
    assert agent.changes == [True, False, True]
    assert agent.recorded().session == agent.tree.session != old


async def test_an_agent_whose_place_was_taken_while_it_was_away_waits(bench: Bench) -> None:
    agent = await start(bench)
    bench.server.cut(agent.tree)
    bench.server.expire(agent.tree.session)
    other = await start(bench, ELSEWHERE)
    bench.server.heal(agent.tree)
    await bench.clock.advance(60)
    assert (other.presence.held, agent.presence.held) == (True, False)
    await other.presence.leave()
    await settle()
    assert agent.presence.held


async def test_a_link_lost_while_the_answer_comes_does_not_count_as_held(bench: Bench) -> None:
    store = await bench.store()
    agent = Agent(bench, store, HERE)
    write = store.write

    async def write_and_lose(*changes: object) -> None:
        await write(*changes)  # type: ignore[arg-type]
        store.write = write  # type: ignore[method-assign]
        bench.server.cut(agent.tree)
        bench.server.expire(agent.tree.session)
        await settle()

    store.write = write_and_lose  # type: ignore[method-assign]
    await settle(200)
    assert not agent.presence.held
    bench.server.heal(agent.tree)
    await bench.clock.advance(1)
    assert agent.presence.held
    assert agent.recorded().session == agent.tree.session
    assert agent.entering.done()


async def test_an_agent_waits_for_a_store_that_is_away_when_it_starts(bench: Bench) -> None:
    store = await bench.store()
    bench.server.stop()
    await settle()
    agent = Agent(bench, store, HERE)
    await bench.clock.advance(10)
    assert not agent.presence.held
    bench.server.start()
    await bench.clock.advance(1)
    assert agent.presence.held


async def test_leaving_removes_the_record_of_this_session_only(bench: Bench) -> None:
    first = await start(bench, DEAD_HERE)
    second = await start(bench)
    await first.presence.leave()
    await settle()
    assert second.recorded().session == second.tree.session
    await second.presence.leave()
    await settle()
    assert first.store.get(Presence, "hv1") is None
    assert second.changes == [True, False]


async def test_leaving_without_a_store_is_fine(bench: Bench) -> None:
    agent = await start(bench)
    bench.server.stop()
    await agent.presence.leave()
    assert not agent.presence.held


async def test_while_an_agent_is_not_in_the_cluster_its_handlers_begin_no_turn() -> None:
    handlers, seen = Handlers(), []

    @handlers.on(Thing)
    async def follow(context: Context, thing: Thing) -> None:
        seen.append(thing.value)

    module = plugin(records=[Thing], handlers=[handlers])
    async with SimulatedCluster(["hv1"], plugins=[module], without=["node", "vm"]) as cluster:
        await cluster.api.store.write(Create(Thing(name="a", value=1)))
        await settle()
        agent = cluster.agents["hv1"]
        thing, tree = agent.store.get(Thing, "a"), agent.store.tree
        assert thing is not None
        assert isinstance(tree, MemoryTree)
        cluster.server.cut(tree)
        cluster.server.expire(tree.session)
        await cluster.advance(100)
        agent.wake(thing)
        await cluster.api.store.write(Put(thing.changed(value=2)))
        await settle()
        assert seen == [1]
        cluster.server.heal(tree)
        await settle()
        assert seen == [1, 2]


def test_this_process_is_alive_and_one_that_started_at_another_time_is_not() -> None:
    assert not HERE.has_ended()
    assert DEAD_HERE.has_ended()
    assert HERE.model_copy(update={"pid": 2**22 + 1}).has_ended()


@pytest.mark.parametrize("other", [{"boot": "x"}, {"namespace": 1}])
def test_of_a_process_elsewhere_nothing_is_known(other: dict[str, object]) -> None:
    assert not DEAD_HERE.model_copy(update=other).has_ended()
