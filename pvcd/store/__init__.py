"""The store: records in ZooKeeper, kept in memory, written in transactions.

vm = store.get(VM, uuid)                         # from memory, never waits
await store.write(Put(vm.changed(name="web2")))  # all or none; raises Changed when somebody else was first
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TypeVar

from pvcd.clock import Clock, SystemClock
from pvcd.errors import Changed, Exists, StoreUnavailable
from pvcd.records import Record
from pvcd.store.changes import Change, Check, Create, Delete, Put, encode, retried
from pvcd.store.queues import Queues
from pvcd.store.replica import Replica, Subscriber
from pvcd.store.tree import Link, Node, Tree

__all__ = ["Change", "Check", "Create", "Delete", "Link", "Put", "Store", "retried"]

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)
CATCH_UP_SECONDS = 10.0
RETRY_SECONDS = 0.2


class Store:
    """What plugins see of the store."""

    def __init__(self, tree: Tree, types: Iterable[type[Record]], clock: Clock | None = None) -> None:
        self.tree = tree
        self._clock = clock or SystemClock()
        self._replica = Replica(tree, types)
        self._live = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.queues = Queues()
        self._reviving: asyncio.Task[None] | None = None
        self._link_listeners: list[Callable[[Link], None]] = []
        self._fence: Callable[[], Sequence[Change]] | None = None

    @property
    def stale_since(self) -> float | None:
        """Seconds since 1970 from when on reads may be behind, or None while they are live."""
        return self._replica.stale_since

    async def open(self) -> None:
        """Connect and fill the memory; return when reads are good."""
        await self.tree.open(self._hinted, self._linked)
        try:
            await self.tree.watch(self._replica.roots)
            await self._replica.reload()
        except BaseException:  # also when we are cancelled: nobody else would end the session
            await self.close()
            raise
        if self.stale_since is None:
            self._live.set()

    async def close(self) -> None:
        """End the session and everything that waits for it."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.tree.close()

    def get(self, record_type: type[R], *keys: object) -> R | None:
        """One record from memory."""
        return self._replica.all(record_type).get(record_type.at(*keys))

    def all(self, record_type: type[R]) -> list[R]:
        """All records of a type from memory, sorted by path."""
        records = self._replica.all(record_type)
        return [records[path] for path in sorted(records)]

    def knows(self, record_type: type[Record]) -> bool:
        """Whether a plugin declares this type."""
        return self._replica.knows(record_type)

    def find(self, path: str) -> Record | None:
        """The record at a path, from memory."""
        return self._replica.find(path)

    async def read(self, record_type: type[R], *keys: object) -> R | None:
        """One record as it is now: for decisions that must not rest on memory."""
        path = record_type.at(*keys)
        await self.tree.sync()
        self._replica.apply(path, await self.tree.get(path))
        return self.get(record_type, *keys)

    async def catch_up(self) -> None:
        """Return when all that anybody has written before is in memory: for decisions that rest on many records."""
        await self.tree.sync()
        # The tree has hinted at all of it by now: hints and answers come in one order.
        hints = set(self._tasks)
        if hints:
            _, late = await asyncio.wait(hints, timeout=CATCH_UP_SECONDS)
            if late:
                raise StoreUnavailable(f"What others wrote could not be read within {CATCH_UP_SECONDS:g} s.")

    async def write(self, *changes: Change) -> None:
        """All of the changes or none; they are seen by reads of this process before it returns.

        Raises `Changed`, `Exists`, `StoreUnavailable` or `Invalid` (too large). If the caller is cancelled while it
        waits, what was sent is done all the same, and seen as a change of somebody else would be.
        """
        self.queues.refuse_others(change.record.path for change in changes)
        if self._fence:
            changes = (*changes, *self._fence())
        await self._commit(changes)

    def fenced(self, fence: Callable[[], Sequence[Change]]) -> Store:
        """The same store, but each transaction also carries the checks that `fence` gives at that moment."""
        twin = copy.copy(self)
        twin._fence = fence
        return twin

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Be told of every change as (path, old, new); call the result to end it."""
        return self._replica.subscribe(subscriber)

    def on_link(self, listener: Callable[[Link], None]) -> None:
        """Be told how the connection stands; after a loss CONNECTED comes when memory is true again."""
        self._link_listeners.append(listener)

    async def live(self) -> None:
        """Return when the connection stands and memory is true."""
        await self._live.wait()

    async def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Return True as soon as a condition on the records holds, or False when the time has passed."""
        woken = asyncio.Event()
        end = self.subscribe(lambda *_: woken.set())
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        timer.add_done_callback(lambda _: woken.set())
        try:
            while not condition():
                if timer.done():
                    return False
                await woken.wait()
                woken.clear()
            return True
        finally:
            end()
            timer.cancel()

    async def _commit(self, changes: Sequence[Change]) -> None:
        nodes = [encode(change) for change in changes]
        try:
            results = await self.tree.commit(nodes)
        except (Changed, Exists) as error:
            await self._look(error.path)
            raise
        for change, result in zip(changes, results, strict=True):
            self._take(change, result)

    def _take(self, change: Change, result: Node | None) -> None:
        if isinstance(change, Delete):
            self._replica.removed(change.record.path, change.record.serial)
        elif result is not None:
            self._replica.apply(change.record.path, result)

    async def _look(self, path: str) -> None:
        """Read one document anew; after a lost connection everything is read anew in any case."""
        while True:
            try:
                return await self._replica.hint(path)
            except StoreUnavailable:
                if self.tree.link is not Link.CONNECTED:
                    return None
                await self._clock.sleep(RETRY_SECONDS)

    def _hinted(self, path: str) -> None:
        self._start(self._look(path))

    def _linked(self, link: Link) -> None:
        if self._reviving:
            self._reviving.cancel()
        if link is Link.CONNECTED:
            self._reviving = self._start(self._revive())
            return
        self._live.clear()
        if self._replica.stale_since is None:
            self._replica.stale_since = self._clock.time()
        self._tell_link(link)

    async def _revive(self) -> None:
        while self.tree.link is Link.CONNECTED:
            try:
                await self._replica.reload()
            except StoreUnavailable:
                await self._clock.sleep(RETRY_SECONDS)
                continue
            self._replica.stale_since = None
            self._live.set()
            self._tell_link(Link.CONNECTED)
            return

    def _tell_link(self, link: Link) -> None:
        for listener in tuple(self._link_listeners):
            listener(link)

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody waits any more if the caller was cancelled
