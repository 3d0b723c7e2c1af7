"""The primary lease: one coordinator acts for the cluster, and its writes are fenced.

The lease is a record that changes only by compare-and-set. Its holder puts `Check(lease)` into each transaction that it
writes as primary, so a process that was paused while another one took over finds its writes refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from pvcd.clock import Clock
from pvcd.cluster.presence import Presence, PresenceHolder
from pvcd.declare.context import ComponentKey
from pvcd.errors import Changed, Conflict, StoreUnavailable
from pvcd.records import Name, Record
from pvcd.store import Check, Store, Upsert

log = logging.getLogger(__name__)
RETRY = 1.0


class Primary(Record, path="/primary/lease"):
    """Who is primary; `epoch` counts the takings."""

    node: Name | None = None
    epoch: int = 0


def primary_of(store: Store) -> str | None:
    """The node that is primary now: it holds the lease and its agent lives."""
    lease = store.get(Primary)
    if lease is None or lease.node is None or store.get(Presence, lease.node) is None:
        return None
    return lease.node


async def assign_primary(store: Store, node: str | None) -> None:
    """Give the lease to a node, or to nobody."""
    lease = await store.read(Primary) or Primary()
    if lease.node != node:
        await store.write(Upsert(lease.changed(node=node, epoch=lease.epoch + 1)))


class Lease:
    """This node's part in who is primary."""

    def __init__(
        self, store: Store, clock: Clock, node: str, presence: PresenceHolder, *, candidate: bool, grace: float
    ) -> None:
        self._store = store
        self._clock = clock
        self._node = node
        self._presence = presence
        self._candidate = candidate
        self._grace = grace
        self._woken = asyncio.Event()

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

    async def follow(self, duties: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Take the lease when nobody lives who holds it, and be inside of `duties` for as long as it is ours."""
        while True:
            if self._vacant():
                await self._claim()
            elif self.held:
                await self._act(duties)
            else:
                await self._until(lambda: self.held or self._vacant())

    def wake(self) -> None:
        """Look at once whether the lease is still ours: this node has entered the cluster, or lost touch with it."""
        self._woken.set()

    async def _act(self, duties: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        log.info("node %s is now primary", self._node)
        try:
            async with duties():
                await self._until_lost()
        except Exception:
            log.exception("what the primary does failed, and is begun again")
            await self._clock.sleep(RETRY)
        finally:
            log.info("node %s is no longer primary", self._node)

    async def _until_lost(self) -> None:
        """Return when another one may be primary: not at once when touch is lost, for our session lasts on a while."""
        while await self._until(lambda: not self.held):
            if self._presence.held or not await self._until(lambda: self.held, self._grace):
                return

    async def _until(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        return await self._store.wait_for(condition, seconds, self._woken)

    async def release(self) -> None:
        """Give the lease up, so that another coordinator need not wait for our session to end."""
        if self.held:
            try:
                await assign_primary(self._store, None)
            except (Changed, StoreUnavailable) as error:
                log.info("the lease was not released: %s", error)

    def _vacant(self) -> bool:
        return self._candidate and self._presence.held and primary_of(self._store) is None

    async def _claim(self) -> None:
        try:
            await assign_primary(self._store, self._node)
        except (Changed, StoreUnavailable):
            await self._clock.sleep(0.1)


LEASE: ComponentKey[Lease] = ComponentKey("lease")
