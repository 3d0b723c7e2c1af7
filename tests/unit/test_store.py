"""The store over the tree in memory: own writes, contention, lost connections, races and faults."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pvcd.clock import settle
from pvcd.errors import Changed, Conflict, Exists, Invalid, StoreUnavailable
from pvcd.records import Record
from pvcd.store import Check, Create, Delete, Link, Put, Store, retried
from pvcd.store.memory import MemoryTree
from pvcd.store.tree import MAX_DOCUMENT_BYTES, CreateNode, Node, SetNode

from .conftest import Bench, Part, Thing


class GatedTree(MemoryTree):
    """A tree whose `load` answers with what it saw when it was asked, but only when the gate is open."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.server)
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self) -> dict[str, Node]:
        found = await super().load()
        await self.gate.wait()
        return found


class DeafTree(MemoryTree):
    """A tree that hears of no change."""

    def hear(self, paths: Any) -> None:
        pass


def recorded(store: Store) -> list[tuple[str, Record | None, Record | None]]:
    """All that subscribers of a store are told from now on."""
    told: list[tuple[str, Record | None, Record | None]] = []
    store.subscribe(lambda path, old, new: told.append((path, old, new)))
    return told


def stored(store: Store, name: str) -> Thing:
    thing = store.get(Thing, name)
    assert thing is not None
    return thing


@retried
async def count(context: Any, name: str) -> None:
    """Add one to a record, as every rule does it."""
    thing = stored(context.store, name)
    await asyncio.sleep(0)
    await context.store.write(Put(thing.changed(value=thing.value + 1)))


async def test_a_write_is_read_at_once_by_its_own_process(bench: Bench) -> None:
    store = await bench.store()
    await store.write(Create(Thing(name="a", value=1)))
    assert stored(store, "a").value == 1
    await store.write(Put(stored(store, "a").changed(value=2)))
    assert (stored(store, "a").value, stored(store, "a").version) == (2, 1)
    await store.write(Delete(stored(store, "a")))
    assert store.get(Thing, "a") is None


async def test_a_write_is_seen_by_other_processes(bench: Bench) -> None:
    one, other = await bench.store(), await bench.store()
    await one.write(Create(Thing(name="a")), Create(Part(name="a", number=1)))
    await settle()
    assert other.all(Thing) == one.all(Thing) != []
    assert other.find("/things/a/parts/1") == other.get(Part, "a", 1) == one.get(Part, "a", 1) is not None


async def test_records_are_listed_by_path_and_each_type_for_itself(bench: Bench) -> None:
    store = await bench.store()
    await store.write(*(Create(Thing(name=name)) for name in "bca"), Create(Part(name="b", number=2)))
    assert [thing.name for thing in store.all(Thing)] == ["a", "b", "c"]
    assert [part.number for part in store.all(Part)] == [2]
    assert store.get(Thing, "b/parts/2") is None


async def test_a_stale_write_is_refused_and_what_is_true_is_known_then(bench: Bench) -> None:
    one, deaf = await bench.store(), await bench.store(DeafTree(bench.server))
    await one.write(Create(Thing(name="a")))
    await deaf.read(Thing, "a")
    await one.write(Put(stored(one, "a").changed(value=7)))
    await settle()
    assert stored(deaf, "a").value == 0, "it should not have heard of the change yet"
    with pytest.raises(Changed, match="Cannot write '/things/a': changed by another writer"):
        await deaf.write(Put(stored(deaf, "a").changed(value=1)))
    assert stored(deaf, "a").value == 7


async def test_what_exists_is_not_created_again_and_is_known_then(bench: Bench) -> None:
    one, deaf = await bench.store(), await bench.store(DeafTree(bench.server))
    await one.write(Create(Thing(name="a", value=7)))
    with pytest.raises(Exists):
        await deaf.write(Create(Thing(name="a")))
    assert stored(deaf, "a").value == 7


async def test_several_changes_are_made_together_or_not_at_all(bench: Bench) -> None:
    store = await bench.store()
    await store.write(Create(Thing(name="a")))
    old = stored(store, "a")
    await store.write(Put(old.changed(value=1)))
    with pytest.raises(Changed):
        await store.write(Create(Thing(name="b")), Put(old.changed(value=2)))
    assert [thing.value for thing in store.all(Thing)] == [1]


async def test_a_record_that_was_never_read_cannot_be_put(bench: Bench) -> None:
    store = await bench.store()
    with pytest.raises(TypeError, match="read from the store"):
        await store.write(Put(Thing(name="a")))


@pytest.mark.parametrize("processes", [1, 2])
async def test_200_concurrent_changes_of_one_record_are_all_counted(bench: Bench, processes: int) -> None:
    stores = [await bench.store() for _ in range(processes)]
    await stores[0].write(Create(Thing(name="a")))
    await settle()
    contexts = [bench.context(store) for store in stores]
    await bench.finish(asyncio.gather(*(count(contexts[number % processes], "a") for number in range(200))))
    await settle()
    assert [stored(store, "a").value for store in stores] == [200] * processes


async def test_only_one_at_a_time_has_the_turn_at_a_record(bench: Bench) -> None:
    store = await bench.store()
    inside: list[int] = []
    most = 0

    async def take_turns(number: int) -> None:
        nonlocal most
        for _ in range(3):
            async with store.locks.hold("/things/a"):
                inside.append(number)
                most = max(most, len(inside))
                await asyncio.sleep(0)
                inside.remove(number)

    await asyncio.gather(*map(take_turns, range(4)))
    assert most == 1
    assert not store.locks._locks, "it should remember no queue in which nobody stands"


async def test_a_rule_that_never_gets_its_turn_says_so(bench: Bench) -> None:
    store = await bench.store()

    @retried
    async def hopeless(context: Any) -> None:
        raise Changed("/things/a")

    with pytest.raises(Changed):
        await bench.finish(hopeless(bench.context(store)))


async def test_a_write_goes_through_though_its_writer_is_cancelled(bench: Bench) -> None:
    store = await bench.store()
    writing = asyncio.ensure_future(store.write(Create(Thing(name="a"))))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await settle()
    assert stored(store, "a").version == 0


async def test_after_a_suspension_what_was_missed_is_made_up_for(bench: Bench) -> None:
    one, cut = await bench.store(), await bench.store()
    await one.write(*(Create(Thing(name=name)) for name in ("changed", "removed", "same")))
    await settle()
    assert isinstance(cut.tree, MemoryTree)
    links: list[tuple[Link, int]] = []
    cut.on_link(lambda link: links.append((link, len(cut.all(Thing)))))
    told = recorded(cut)
    bench.server.cut(cut.tree)
    await settle()
    assert cut.stale_since == bench.clock.time()
    await one.write(Create(Thing(name="created")), Create(Thing(name="created2")))
    await one.write(Put(stored(one, "changed").changed(value=1)), Delete(stored(one, "removed")))
    await settle()
    assert [thing.name for thing in cut.all(Thing)] == ["changed", "removed", "same"], "it should be stale"
    bench.server.heal(cut.tree)
    await settle()
    assert cut.stale_since is None
    assert cut.all(Thing) == one.all(Thing)
    assert sorted(path for path, _, _ in told) == [
        f"/things/{n}" for n in ("changed", "created", "created2", "removed")
    ]
    assert links == [(Link.SUSPENDED, 3), (Link.CONNECTED, 4)], "it should be told after memory is true again"


async def test_writes_fail_at_once_while_the_store_is_away_and_reads_go_on(bench: Bench) -> None:
    store = await bench.store()
    await store.write(Create(Thing(name="a")))
    bench.server.stop()
    with pytest.raises(StoreUnavailable):
        await store.write(Put(stored(store, "a").changed(value=1)))
    assert stored(store, "a").value == 0
    bench.server.start()
    await settle()
    await store.write(Put(stored(store, "a").changed(value=1)))


async def test_live_waits_until_memory_is_true_again(bench: Bench) -> None:
    tree = GatedTree(bench)
    store = await bench.store(tree)
    bench.server.stop()
    await settle()
    live = asyncio.ensure_future(store.live())
    tree.gate.clear()
    bench.server.start()
    await settle()
    assert not live.done()
    tree.gate.set()
    await settle()
    assert live.done()


async def test_a_link_lost_while_memory_is_filled_again_does_not_count_as_live(bench: Bench) -> None:
    tree = GatedTree(bench)
    store = await bench.store(tree)
    links: list[Link] = []
    store.on_link(links.append)
    bench.server.stop()
    await settle()
    tree.gate.clear()
    bench.server.start()
    await settle()
    bench.server.stop()
    tree.gate.set()
    await settle()
    assert store.stale_since is not None
    assert links[-1] is Link.SUSPENDED
    bench.server.start()
    await settle()
    await store.live()
    assert links[-2:] == [Link.SUSPENDED, Link.CONNECTED]


async def test_a_link_that_comes_and_goes_loses_no_change(bench: Bench) -> None:
    tree = GatedTree(bench)
    one, store = await bench.store(), await bench.store(tree)
    await one.write(Create(Thing(name="a")))
    tree.gate.clear()
    for _ in range(3):
        bench.server.cut(tree)
        await settle()
        bench.server.heal(tree)
        await settle()
        await one.write(Put(stored(one, "a").changed(value=stored(one, "a").value + 1)))
        await settle()
    tree.gate.set()
    await settle()
    assert (stored(store, "a").value, store.stale_since) == (3, None)


async def test_a_record_that_is_removed_while_memory_is_filled_does_not_come_back(bench: Bench) -> None:
    tree = GatedTree(bench)
    one, store = await bench.store(), await bench.store(tree)
    await one.write(Create(Thing(name="a")))
    await settle()
    bench.server.cut(tree)
    await settle()
    told = recorded(store)
    tree.gate.clear()
    bench.server.heal(tree)
    await settle()
    await one.write(Delete(stored(one, "a")))
    await settle()
    tree.gate.set()
    await settle()
    assert store.get(Thing, "a") is None
    assert [(path, new) for path, _, new in told] == [("/things/a", None)]


async def test_a_record_that_is_made_while_memory_is_filled_is_known(bench: Bench) -> None:
    tree = GatedTree(bench)
    one, store = await bench.store(), await bench.store(tree)
    bench.server.cut(tree)
    await settle()
    tree.gate.clear()
    bench.server.heal(tree)
    await settle()
    await one.write(Create(Thing(name="a", value=1)))
    await one.write(Put(stored(one, "a").changed(value=2)))
    await settle()
    tree.gate.set()
    await settle()
    assert stored(store, "a").value == 2


async def test_an_older_reading_never_replaces_a_newer(bench: Bench) -> None:
    store = await bench.store()
    await store.write(Create(Thing(name="a")))
    old = bench.server.documents["/things/a"]
    await store.write(Put(stored(store, "a").changed(value=1)))
    store._replica.apply("/things/a", old)
    assert stored(store, "a").value == 1


async def test_a_record_that_was_made_again_is_not_taken_for_the_removed_one(bench: Bench) -> None:
    one, other = await bench.store(), await bench.store()
    await one.write(Create(Thing(name="a")))
    first = stored(one, "a")
    await one.write(Delete(first))
    await settle()
    await other.write(Create(Thing(name="a", value=2)))
    await settle()
    one._replica.removed(first.path, first.serial)
    assert stored(one, "a").value == 2


@pytest.mark.parametrize(
    "document", [b"{nonsense", b'{"name": "bad", "value": "x"}', b'{"name": "elsewhere"}', b"\xff"]
)
async def test_a_corrupt_document_is_passed_over_and_logged(
    bench: Bench, document: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    bench.server.commit([CreateNode("/things/bad", document), CreateNode("/things/good", b'{"name": "good"}')], 0)
    store = await bench.store()
    assert [thing.name for thing in store.all(Thing)] == ["good"]
    assert "/things/bad in the store" in caplog.text
    bench.server.commit([SetNode("/things/bad", b'{"name": "bad", "value": 3}', 0)], 0)
    await settle()
    assert stored(store, "bad").value == 3


async def test_fields_of_a_newer_daemon_are_kept_by_an_older_one(bench: Bench) -> None:
    bench.server.commit([CreateNode("/things/a", b'{"name": "a", "colour": "blue"}')], 0)
    store = await bench.store()
    await store.write(Put(stored(store, "a").changed(value=1)))
    assert b'"colour":"blue"' in bench.server.documents["/things/a"].data


async def test_subscribers_are_told_of_each_change_until_they_end_it(bench: Bench) -> None:
    one, other = await bench.store(), await bench.store()
    told: list[tuple[int | None, int | None]] = []

    def value(record: Record | None) -> int | None:
        return record.value if isinstance(record, Thing) else None

    end = other.subscribe(lambda path, old, new: told.append((value(old), value(new))))
    await one.write(Create(Thing(name="a", value=1)))
    await settle()
    await one.write(Put(stored(one, "a").changed(value=2)))
    await settle()
    await one.write(Delete(stored(one, "a")))
    await settle()
    end()
    await one.write(Create(Thing(name="a", value=3)))
    await settle()
    assert told == [(None, 1), (1, 2), (2, None)]


async def test_one_write_is_told_once(bench: Bench) -> None:
    store = await bench.store()
    told = recorded(store)
    await store.write(Create(Thing(name="a")))
    await settle()
    assert len(told) == 1


async def test_read_asks_the_store_itself(bench: Bench) -> None:
    one, deaf = await bench.store(), await bench.store(DeafTree(bench.server))
    await one.write(Create(Thing(name="a", value=5)))
    await settle()
    assert deaf.get(Thing, "a") is None
    read = await deaf.read(Thing, "a")
    assert read is not None
    assert read.value == 5
    assert deaf.get(Thing, "a") is read


async def test_after_catching_up_all_that_others_have_written_is_in_memory(bench: Bench) -> None:
    one, other = await bench.store(), await bench.store()
    for number in range(30):
        await one.write(Create(Thing(name=f"thing{number}")))
    await other.catch_up()
    assert len(other.all(Thing)) == 30


async def test_wait_for_returns_when_the_condition_holds(bench: Bench) -> None:
    one, other = await bench.store(), await bench.store()
    waiting = asyncio.ensure_future(other.wait_for(lambda: other.get(Thing, "b") is not None, 10))
    await one.write(Create(Thing(name="a")))
    await bench.clock.advance(9)
    assert not waiting.done()
    await one.write(Create(Thing(name="b")))
    await settle()
    assert waiting.done()
    assert waiting.result()


async def test_wait_for_does_not_wait_for_what_holds_already(bench: Bench) -> None:
    store = await bench.store()
    assert await store.wait_for(lambda: True, 10)


async def test_wait_for_gives_up_when_its_time_is_over(bench: Bench) -> None:
    store = await bench.store()
    waiting = asyncio.ensure_future(store.wait_for(lambda: False, 10))
    await bench.clock.advance(9.9)
    assert not waiting.done()
    await bench.clock.advance(0.2)
    assert waiting.done()
    assert not waiting.result()


async def test_a_cancelled_wait_leaves_nothing_behind(bench: Bench) -> None:
    store = await bench.store()
    before = asyncio.all_tasks()
    waiting = asyncio.ensure_future(store.wait_for(lambda: False, 10))
    await settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await settle()
    assert asyncio.all_tasks() == before
    assert store._replica._subscribers == []


async def test_a_fenced_write_is_refused_after_the_lease_has_moved(bench: Bench) -> None:
    paused, other = await bench.store(DeafTree(bench.server)), await bench.store()
    await other.write(Create(Thing(name="lease", value=1)))
    lease = await paused.read(Thing, "lease")
    assert lease is not None
    fenced = paused.fenced(lambda: [Check(lease)])
    await fenced.write(Create(Thing(name="a")))
    await other.write(Put(stored(other, "lease").changed(value=2)))
    with pytest.raises(Changed):
        await fenced.write(Create(Thing(name="b")))
    await settle()
    assert [thing.name for thing in other.all(Thing)] == ["a", "lease"]


async def test_a_fence_that_refuses_lets_nothing_be_written(bench: Bench) -> None:
    store = await bench.store()

    def fence() -> list[Check]:
        raise Conflict("not the primary any more")

    with pytest.raises(Conflict):
        await store.fenced(fence).write(Create(Thing(name="a")))
    await store.write(Create(Thing(name="b")))
    assert [thing.name for thing in store.all(Thing)] == ["b"]


async def test_what_is_too_large_is_refused_before_it_is_sent(bench: Bench) -> None:
    store = await bench.store()
    serial = bench.server.serial
    with pytest.raises(Invalid, match=f"/things/a must have at most {MAX_DOCUMENT_BYTES} bytes; got .* bytes"):
        await store.write(Create(Thing(name="a", note="x" * MAX_DOCUMENT_BYTES)))
    with pytest.raises(Invalid, match="A transaction"):
        await store.write(*(Create(Thing(name=f"a{n}", note="x" * (MAX_DOCUMENT_BYTES // 2))) for n in range(5)))
    assert bench.server.serial == serial
    await store.write(Create(Thing(name="a")))


async def test_a_store_that_cannot_be_filled_ends_its_session(bench: Bench) -> None:
    tree = GatedTree(bench)
    tree.gate.clear()
    store = Store(tree, [Thing], bench.clock)
    opening = asyncio.ensure_future(store.open())
    await settle()
    session = tree.session
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    assert not bench.server.lives(session)


async def test_closing_ends_the_session_and_all_work(bench: Bench) -> None:
    before = asyncio.all_tasks()
    store = await bench.store()
    session = store.tree.session
    await store.close()
    await settle()
    assert not bench.server.lives(session)
    assert asyncio.all_tasks() == before
