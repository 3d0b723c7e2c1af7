"""The store: records in ZooKeeper, kept in memory, written in transactions.

vm = store.get(VM, uuid)                         # from memory, never waits
await store.write(Put(vm.changed(name="web2")))  # all or none; raises Changed when another writer was first
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from pvcd.clock import Clock, SystemClock
from pvcd.errors import Changed, StoreUnavailable
from pvcd.records import Record
from pvcd.store.changes import Change, Check, Create, Delete, Put, Upsert, encode, retried, retry
from pvcd.store.locks import KeyedLocks
from pvcd.store.replica import Replica, Subscriber
from pvcd.store.tree import Link, Tree

__all__ = ["Change", "Check", "Create", "Delete", "Link", "Put", "Store", "Upsert", "retried"]

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)
CATCH_UP_SECONDS = 10.0
RETRY_SECONDS = 0.2


class Store:
    """The records of the cluster, as plugins read and write them."""

    def __init__(self, tree: Tree, types: Iterable[type[Record]], clock: Clock | None = None) -> None:
        self.tree = tree
        self.locks = KeyedLocks()
        self._clock = clock or SystemClock()
        self._replica = Replica(types)
        self._live = asyncio.Event()
        self._reading: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._reviving: asyncio.Task[None] | None = None
        self._link_listeners: list[Callable[[Link], None]] = []
        self._fence: Callable[[], Sequence[Change]] | None = None

    @property
    def stale_since(self) -> float | None:
        """The time, in seconds since 1970, from when on reads may be behind, or None while they are live."""
        return self._replica.stale_since

    async def open(self) -> None:
        """Connect and read all records; return when reads are live."""
        await self.tree.open(self._hinted, self._linked)
        try:
            await self.tree.watch(self._replica.roots)
            await self._reload()
        except BaseException:  # also when cancelled: nothing else would end the session
            await self.close()
            raise
        if self.stale_since is None:
            self._live.set()

    async def close(self) -> None:
        """End the session and everything that waits for it."""
        for task in tuple(self._reading):
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        await self.tree.close()

    # Reading

    def get(self, record_type: type[R], *keys: object) -> R | None:
        """Return one record from memory."""
        return self._replica.all(record_type).get(record_type.at(*keys))

    def all(self, record_type: type[R]) -> list[R]:
        """Return all records of a type from memory, sorted by path."""
        records = self._replica.all(record_type)
        return [records[path] for path in sorted(records)]

    def knows(self, record_type: type[Record]) -> bool:
        """Return whether a plugin declares this type."""
        return self._replica.knows(record_type)

    def find(self, path: str) -> Record | None:
        """Return the record at a path from memory."""
        return self._replica.find(path)

    async def read(self, record_type: type[R], *keys: object) -> R | None:
        """Read one record from ZooKeeper, for decisions that must not rest on memory."""
        path = record_type.at(*keys)
        await self.tree.sync()
        self._replica.apply(path, await self.tree.get(path))
        return self.get(record_type, *keys)

    async def catch_up(self) -> None:
        """Return when all earlier writes of anyone are in memory, for decisions that rest on many records."""
        await self.tree.sync()
        # By now the tree has hinted at all of them, because hints and answers come in one order.
        readings = set(self._reading)
        if readings:
            _, late = await asyncio.wait(readings, timeout=CATCH_UP_SECONDS)
            if late:
                raise StoreUnavailable(f"Cannot read what others wrote: it took longer than {CATCH_UP_SECONDS:g} s.")

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber(path, old, new)` at every change from now on; return the function that ends this."""
        return self._replica.subscribe(subscriber)

    async def wait_for(
        self, condition: Callable[[], bool], seconds: float | None = None, woken: asyncio.Event | None = None
    ) -> bool:
        """Return True as soon as a condition holds, or False when the time has passed.

        The condition is looked at again after every change of a record, and when `woken` is set.
        """
        event = woken or asyncio.Event()
        end = self.subscribe(lambda *_: event.set())
        timer = None if seconds is None else asyncio.ensure_future(self._clock.sleep(seconds))
        if timer:
            timer.add_done_callback(lambda _: event.set())
        try:
            while not condition():
                if timer and timer.done():
                    return False
                await event.wait()
                event.clear()
            return True
        finally:
            end()
            if timer:
                timer.cancel()

    # Writing

    async def write(self, *changes: Change) -> None:
        """Make all of the changes or none; reads of this process see them before it returns.

        Raises `Changed`, `Exists`, `StoreUnavailable` or `Invalid` (too large). If the caller is cancelled while it
        waits, the transaction is done all the same, and seen as one of another process would be.
        """
        self.locks.refuse_others(change.record.path for change in changes)
        if self._fence:
            changes = (*changes, *self._fence())
        try:
            nodes = await self.tree.commit([encode(change) for change in changes])
        except Changed as error:
            await self._refresh(error.path)
            raise
        for change, node in zip(changes, nodes, strict=True):
            if isinstance(change, Delete):
                self._replica.removed(change.record.path, change.record.serial)
            elif node is not None:
                self._replica.apply(change.record.path, node)

    async def upsert(self, record_type: type[R], *keys: object, **values: Any) -> R | None:
        """Give the record with these keys other values, or create it with them; return the record as it was before.

        Nothing is written if it has these values already.
        """

        async def rule() -> R | None:
            old = self.get(record_type, *keys)
            if old is None:
                fields = dict(zip(record_type.key_fields, keys, strict=True))
                await self.write(Create(record_type.model_validate(fields | values)))
            elif not old.holds(values):
                await self.write(Put(old.changed(**values)))
            return old

        return await retry(self.locks, self._clock, rule)

    def fenced(self, fence: Callable[[], Sequence[Change]]) -> Store:
        """Return the same store, but each transaction also carries the checks that `fence` returns at that moment."""
        twin = copy.copy(self)
        twin._fence = fence
        return twin

    # The link

    def on_link(self, listener: Callable[[Link], None]) -> None:
        """Call `listener` with each change of the link; after a loss CONNECTED comes when reads are live again."""
        self._link_listeners.append(listener)

    async def live(self) -> None:
        """Return when the link stands and reads are live."""
        await self._live.wait()

    def _linked(self, link: Link) -> None:
        if self._reviving:
            self._reviving.cancel()
        if link is Link.CONNECTED:
            self._reviving = self._start(self._revive())
            return
        self._live.clear()
        if self.stale_since is None:
            self._replica.stale_since = self._clock.time()
        self._notify_link(link)

    async def _revive(self) -> None:
        while self.tree.link is Link.CONNECTED:
            try:
                await self._reload()
            except StoreUnavailable:
                await self._clock.sleep(RETRY_SECONDS)
                continue
            self._replica.stale_since = None
            self._live.set()
            self._notify_link(Link.CONNECTED)
            return

    def _notify_link(self, link: Link) -> None:
        for listener in tuple(self._link_listeners):
            listener(link)

    # From the tree into memory: a hint, or a loss, makes us read; the replica takes it and tells its subscribers

    def _hinted(self, path: str) -> None:
        self._start(self._refresh(path))

    async def _refresh(self, path: str) -> None:
        """Read one document into memory; give up only without a link, after which everything is read anew."""
        while True:
            try:
                return self._replica.apply(path, await self.tree.get(path))
            except StoreUnavailable:
                if self.tree.link is not Link.CONNECTED:
                    return None
                await self._clock.sleep(RETRY_SECONDS)

    async def _reload(self) -> None:
        """Read everything into memory, and what changed meanwhile once more."""
        async with self._reloading:
            with self._replica.recorded() as touched:
                nodes = await self.tree.load()
        for path, node in nodes.items():
            if path not in touched:
                self._replica.apply(path, node)
        for path in sorted(touched.union(path for path in self._replica.paths() if path not in nodes)):
            self._replica.apply(path, await self.tree.get(path))

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._reading.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._reading.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen; `catch_up` only waits for the end
