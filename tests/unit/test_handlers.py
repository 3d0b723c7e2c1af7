"""Handlers: whose turn it is, with what, and when again."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pvcd.clock import settle
from pvcd.cluster.dispatcher import MAX_RECONCILES, HandlerRunner
from pvcd.declare.handlers import Handlers, Requeue
from pvcd.errors import Refused
from pvcd.plugin.loading import Plugin
from pvcd.plugin.registry import collect
from pvcd.records import Record
from pvcd.store import Create, Delete, Put, Store

from .conftest import Bench, Part, Thing, plugin

RESYNC = 1000.0


class Scene:
    """A runner whose handler notes what it is called with, and does what the test says."""

    def __init__(self, bench: Bench, store: Store, resync: float = RESYNC) -> None:
        self.bench, self.store = bench, store
        self.seen: list[tuple[str, int]] = []
        self.times: list[float] = []
        self.running: list[str] = []
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.results: list[Requeue | Exception | None] = []
        self.handlers = Handlers()
        self.handlers.on(Thing)(self.follow)
        self.runner = HandlerRunner(self.handlers.handlers, resync)

    async def follow(self, context: Any, thing: Thing) -> Requeue | None:
        self.seen.append((thing.name, thing.value))
        self.times.append(self.bench.clock.time() - 1_700_000_000)
        assert thing.name not in self.running, "two turns of one record at a time"
        self.running.append(thing.name)
        self.most = max(self.most, len(self.running))
        try:
            await self.gate.wait()
        finally:
            self.running.remove(thing.name)
        result = self.results.pop(0) if self.results else None
        if isinstance(result, Exception):
            raise result
        return result

    def start(self) -> None:
        self.runner.start(self.bench.context(self.store))

    async def put(self, name: str, value: int) -> None:
        old = self.store.get(Thing, name)
        await self.store.write(Put(old.changed(value=value)) if old else Create(Thing(name=name, value=value)))
        await settle()

    async def remove(self, name: str) -> None:
        old = self.store.get(Thing, name)
        assert old is not None
        await self.store.write(Delete(old))
        await settle()


@pytest.fixture
async def scene(bench: Bench) -> AsyncIterator[Scene]:
    scene = Scene(bench, await bench.store())
    yield scene
    scene.gate.set()
    await scene.runner.stop()


async def test_it_begins_with_every_record_there_is(scene: Scene) -> None:
    await scene.put("a", 1)
    await scene.put("b", 2)
    scene.start()
    await settle()
    assert sorted(scene.seen) == [("a", 1), ("b", 2)]


async def test_each_change_gives_a_turn_and_other_records_give_none(scene: Scene) -> None:
    scene.start()
    await scene.put("a", 1)
    await scene.put("a", 2)
    await scene.store.write(Create(Part(name="a", number=1)))
    await settle()
    assert scene.seen == [("a", 1), ("a", 2)]


async def test_changes_during_a_turn_become_one_turn_with_the_latest_value(scene: Scene) -> None:
    scene.start()
    scene.gate.clear()
    for value in (1, 2, 3, 4):
        await scene.put("a", value)
    assert scene.seen == [("a", 1)]
    scene.gate.set()
    await settle()
    assert scene.seen == [("a", 1), ("a", 4)]


async def test_different_records_are_handled_side_by_side_up_to_a_limit(scene: Scene) -> None:
    scene.start()
    scene.gate.clear()
    for number in range(MAX_RECONCILES + 8):
        await scene.put(f"t{number}", 0)
    assert scene.most == MAX_RECONCILES
    scene.gate.set()
    await settle()
    assert len(scene.seen) == MAX_RECONCILES + 8
    assert scene.most == MAX_RECONCILES


async def test_a_failed_turn_is_tried_again_after_growing_pauses(scene: Scene) -> None:
    scene.results = [OSError(f"{number}") for number in range(5)]
    scene.start()
    await scene.put("a", 1)
    await scene.bench.clock.advance(60)
    assert scene.times == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5]


async def test_the_pause_before_another_try_stays_bounded_for_ever(scene: Scene) -> None:
    scene.results = [Refused("no") for _ in range(2000)]
    scene.start()
    await scene.put("a", 1)
    await scene.bench.clock.advance(1100 * 60)
    pauses = [later - earlier for earlier, later in itertools.pairwise(scene.times)]
    assert len(pauses) >= 1100
    assert max(pauses) == 60


async def test_after_a_success_the_pauses_begin_anew(scene: Scene) -> None:
    scene.results = [Refused("1"), Refused("2"), None, Refused("3")]
    scene.start()
    await scene.put("a", 1)
    await scene.bench.clock.advance(10)
    await scene.put("a", 2)
    await scene.bench.clock.advance(10)
    assert scene.times == [0.0, 0.5, 1.5, 10.0, 10.5]


async def test_after_a_success_that_asks_for_more_the_pauses_begin_anew(scene: Scene) -> None:
    scene.results = [Refused("1"), Refused("2"), Requeue(5.0), Refused("3")]
    scene.start()
    await scene.put("a", 1)
    await scene.bench.clock.advance(20)
    assert scene.times == [0.0, 0.5, 1.5, 6.5, 7.0]


async def test_a_change_does_not_wait_for_the_pause_to_end(scene: Scene) -> None:
    scene.results = [Refused("1"), Refused("2"), Refused("3"), Refused("4")]
    scene.start()
    await scene.put("a", 1)
    await scene.bench.clock.advance(4)
    await scene.put("a", 2)
    assert scene.seen[-1] == ("a", 2)
    assert scene.times[-1] == 4.0


async def test_a_handler_that_wants_another_turn_gets_it(scene: Scene) -> None:
    scene.results = [Requeue(2.0), Requeue(3.0)]
    scene.start()
    await scene.put("a", 1)
    await scene.bench.clock.advance(60)
    assert scene.times == [0.0, 2.0, 5.0]


async def test_a_turn_that_is_due_later_is_not_taken_when_the_record_is_gone(scene: Scene) -> None:
    scene.results = [Requeue(2.0)]
    scene.start()
    await scene.put("a", 1)
    await scene.remove("a")
    await scene.bench.clock.advance(10)
    assert scene.seen == [("a", 1)]
    assert not scene.runner._items


async def test_everything_is_looked_at_again_at_intervals(bench: Bench) -> None:
    scene = Scene(bench, await bench.store(), resync=30)
    await scene.put("a", 1)
    await scene.put("b", 2)
    scene.start()
    await bench.clock.advance(61)
    assert scene.times == [0.0, 0.0, 30.0, 30.0, 60.0, 60.0]
    await scene.runner.stop()


async def test_while_paused_no_turn_begins_and_afterwards_everything_is_looked_at(scene: Scene) -> None:
    await scene.put("b", 1)
    scene.start()
    await settle()
    scene.runner.pause()
    await scene.put("a", 1)
    await scene.put("a", 2)
    await scene.bench.clock.advance(10)
    assert scene.seen == [("b", 1)]
    scene.runner.resume()
    await settle()
    assert sorted(scene.seen) == [("a", 2), ("b", 1), ("b", 1)]


async def test_turns_that_wait_for_room_do_not_begin_while_paused(scene: Scene) -> None:
    scene.start()
    scene.gate.clear()
    for number in range(MAX_RECONCILES + 1):
        await scene.put(f"t{number}", 0)
    scene.runner.pause()
    scene.gate.set()
    await settle()
    assert len(scene.seen) == MAX_RECONCILES


async def test_one_that_is_paused_before_it_starts_begins_when_it_is_resumed(scene: Scene) -> None:
    await scene.put("a", 1)
    scene.runner.pause()
    scene.start()
    await settle()
    assert scene.seen == []
    scene.runner.resume()
    await settle()
    assert scene.seen == [("a", 1)]


async def test_what_happens_outside_the_store_gives_a_turn(scene: Scene) -> None:
    scene.start()
    await scene.put("a", 1)
    thing = scene.store.get(Thing, "a")
    assert thing is not None
    scene.runner.wake(thing)
    await settle()
    assert scene.seen == [("a", 1), ("a", 1)]


async def test_nothing_wakes_a_handler_before_the_start_or_after_the_stop(scene: Scene) -> None:
    await scene.put("a", 1)
    thing = scene.store.get(Thing, "a")
    assert thing is not None
    scene.runner.wake(thing)
    scene.runner.resume()
    await settle()
    assert scene.seen == []
    scene.start()
    await settle()
    await scene.runner.stop()
    scene.seen.clear()
    scene.runner.wake(thing)
    scene.runner.pause()
    scene.runner.resume()
    await scene.put("a", 2)
    await scene.bench.clock.advance(10 * RESYNC)
    assert scene.seen == []
    scene.start()
    await settle()
    assert scene.seen == [("a", 2)]


async def test_stop_ends_turns_timers_and_intervals(bench: Bench) -> None:
    before = asyncio.all_tasks()
    scene = Scene(bench, await bench.store())
    scene.results = [Requeue(1.0)]
    scene.start()
    await scene.put("later", 1)
    scene.gate.clear()
    await scene.put("running", 1)
    assert scene.running == ["running"]
    assert not scene.runner.idle
    await scene.runner.stop()
    await settle()
    assert scene.running == []
    assert scene.runner.idle
    assert asyncio.all_tasks() == before


async def test_a_failing_handler_does_not_stop_the_others(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    store = await bench.store()
    handlers, seen = Handlers(), []

    @handlers.on(Thing)
    async def bad(context: Any, thing: Thing) -> None:
        raise RuntimeError("it is broken")

    @handlers.on(Thing)
    async def good(context: Any, thing: Thing) -> None:
        seen.append(thing.value)

    runner = HandlerRunner(handlers.handlers, RESYNC)
    runner.start(bench.context(store))
    await store.write(Create(Thing(name="a", value=1)))
    await settle()
    thing = store.get(Thing, "a")
    assert thing is not None
    await store.write(Put(thing.changed(value=2)))
    await settle()
    await runner.stop()
    assert seen == [1, 2]
    assert "bad(Thing) of plugin 'core' failed at /things/a (retry in 0.5 s)" in caplog.text
    assert "RuntimeError: it is broken" in caplog.text


async def test_what_a_user_may_read_is_logged_as_a_sentence(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.results = [Refused("The pool is full.")]
    scene.start()
    await scene.put("a", 1)
    (record,) = [record for record in caplog.records if record.name == "pvcd.cluster.dispatcher"]
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert "/things/a: The pool is full. (retry in 0.5 s)" in record.getMessage()


class Farewell:
    """A runner whose handler is told of what is gone."""

    def __init__(self) -> None:
        self.gone: list[Record] = []
        self.errors: list[Exception] = []
        handlers = Handlers()

        @handlers.gone(Thing)
        async def clean(context: Any, thing: Thing) -> None:
            self.gone.append(thing)
            if self.errors:
                raise self.errors.pop()

        self.runner = HandlerRunner(handlers.handlers, RESYNC)


async def test_what_is_gone_is_told_once_with_what_it_was(scene: Scene) -> None:
    farewell = Farewell()
    await scene.put("a", 1)
    farewell.runner.start(scene.bench.context(scene.store))
    await scene.put("a", 2)
    assert farewell.gone == []
    last = scene.store.get(Thing, "a")
    await scene.remove("a")
    await scene.bench.clock.advance(2 * RESYNC)
    await farewell.runner.stop()
    assert farewell.gone == [last]


async def test_a_farewell_that_failed_is_tried_again(scene: Scene) -> None:
    farewell = Farewell()
    farewell.errors = [OSError("busy")]
    farewell.runner.start(scene.bench.context(scene.store))
    await scene.put("a", 1)
    await scene.remove("a")
    await scene.bench.clock.advance(1)
    await farewell.runner.stop()
    assert [record.path for record in farewell.gone] == ["/things/a", "/things/a"]


async def test_the_plugin_of_a_failing_handler_is_named(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    store, handlers = await bench.store(), Handlers()

    @handlers.on(Thing)
    async def bad(context: Any, thing: Thing) -> None:
        raise RuntimeError("it is broken")

    registry = collect(
        [Plugin("shaky", plugin(records=[Thing], handlers=[handlers]), "given to the test", required=False)]
    )
    runner = HandlerRunner(registry.handlers, RESYNC)
    context = bench.context(store)
    context.declarations = registry
    runner.start(context)
    await store.write(Create(Thing(name="a", value=1)))
    await settle()
    await runner.stop()
    assert "bad(Thing) of plugin 'shaky' failed at /things/a" in caplog.text
