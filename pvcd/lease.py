"""The primary lease: one coordinator acts for the cluster, and its writes are fenced.

The lease is a record that changes only by compare-and-set. Its holder puts `Check(lease)` into each transaction that it
writes as primary, so a process that was paused while another one took over finds its writes refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pvcd.clock import Clock
from pvcd.errors import Changed, Conflict, Exists, StoreUnavailable
from pvcd.records import Name, Record
from pvcd.sessions import Presence, Session
from pvcd.store import Check, Create, Put, Store

log = logging.getLogger(__name__)


class Primary(Record, path="/primary/lease"):
    """Who is primary; `epoch` counts the takings."""

    node: Name | None = None
    epoch: int = 0


def primary_of(store: Store) -> str | None:
    """The node that is primary now: it holds the lease and its agent lives."""
    lease = store.get(Primary)
    if lease is None or lease.node is None or store.get(Session, lease.node) is None:
        return None
    return lease.node


async def assign(store: Store, node: str | None) -> None:
    """Give the lease to a node, or to nobody."""
    lease = await store.read(Primary)
    if lease is None:
        await store.write(Create(Primary(node=node, epoch=1)))
    elif lease.node != node:
        await store.write(Put(lease.changed(node=node, epoch=lease.epoch + 1)))


class Lease:
    """This node's part in who is primary."""

    def __init__(self, store: Store, clock: Clock, node: str, presence: Presence, *, candidate: bool) -> None:
        self._store = store
        self._clock = clock
        self._node = node
        self._presence = presence
        self._candidate = candidate
        self._acting = False

    @property
    def held(self) -> bool:
        """Whether this node is primary, as far as it knows."""
        return self._presence.held and primary_of(self._store) == self._node

    def fence(self) -> list[Check]:
        """What each transaction of the primary must carry."""
        lease = self._store.get(Primary)
        if lease is None or not self.held:
            raise Conflict(f"Node {self._node} is not the primary any more.", code="lease-lost")
        return [Check(lease)]

    async def follow(self, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]) -> None:
        """Take the lease when nobody lives who holds it; call `start` when it is ours and `stop` when it is not."""
        try:
            while True:
                if self._vacant():
                    await self._claim()
                if self.held != self._acting:
                    self._acting = not self._acting
                    log.info("node %s is %s primary", self._node, "now" if self._acting else "no longer")
                    await (start() if self._acting else stop())
                await self._store.wait_for(lambda: self.held != self._acting or self._vacant(), 5.0)
        finally:
            if self._acting:
                await asyncio.shield(stop())

    async def release(self) -> None:
        """Give the lease up, so that another coordinator need not wait for our session to end."""
        if self.held:
            try:
                await assign(self._store, None)
            except (Changed, Exists, StoreUnavailable) as error:
                log.info("the lease was not released: %s", error)

    def _vacant(self) -> bool:
        return self._candidate and self._presence.held and primary_of(self._store) is None

    async def _claim(self) -> None:
        try:
            await assign(self._store, self._node)
        except (Changed, Exists, StoreUnavailable):
            await self._clock.sleep(0.1)
