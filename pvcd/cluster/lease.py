"""The primary lease: one coordinator acts for the cluster, and its writes are fenced.

The lease is a record that changes only by compare-and-set. Its holder puts `Check(lease)` into each transaction that it
writes as primary, so the writes of a process that was paused while another one took over are refused.
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
RETRY_SECONDS = 1.0


class Primary(Record, path="/primary/lease"):
    """The primary lease; `epoch` counts its changes."""

    node: Name | None = None
    epoch: int = 0


def primary_of(store: Store) -> str | None:
    """Return the node that is primary now, or None: it holds the lease and its agent is alive."""
    lease = store.get(Primary)
    if lease is None or lease.node is None or store.get(Presence, lease.node) is None:
        return None
    return lease.node


async def assign_primary(store: Store, node: str | None) -> None:
    """Give the lease to a node, or to none."""
    lease = await store.read(Primary) or Primary()
    if lease.node != node:
        await store.write(Upsert(lease.changed(node=node, epoch=lease.epoch + 1)))


class Lease:
    """This node's part in the election of the primary."""

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
        """True if this node is primary, as far as it knows."""
        return self._presence.held and primary_of(self._store) == self._node

    def fence(self) -> list[Check]:
        """Return the checks that each transaction of the primary must carry. Raises `Conflict` if it is not primary."""
        lease = self._store.get(Primary)
        if lease is None or not self.held:
            raise Conflict(
                f"Cannot write as primary: node {self._node!r} has lost the primary lease.", code="lease-lost"
            )
        return [Check(lease)]

    async def follow(self, duties: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Take the lease whenever no living node holds it, and enter `duties` while this node has it."""
        while True:
            if self._vacant():
                await self._claim()
            elif self.held:
                await self._act(duties)
            else:
                await self._until(lambda: self.held or self._vacant())

    def wake(self) -> None:
        """Check at once whether this node has the lease: it has entered the cluster, or lost its presence."""
        self._woken.set()

    async def _act(self, duties: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        log.info("node %s is now primary", self._node)
        try:
            async with duties():
                await self._until_lost()
        except Exception:
            log.exception("the primary's duties failed and are begun again")
            await self._clock.sleep(RETRY_SECONDS)
        finally:
            log.info("node %s is no longer primary", self._node)

    async def _until_lost(self) -> None:
        """Return when another node may be primary; not at once after a loss of presence: the session lives on."""
        while await self._until(lambda: not self.held):
            if self._presence.held or not await self._until(lambda: self.held, self._grace):
                return

    async def _until(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        return await self._store.wait_for(condition, seconds, self._woken)

    async def release(self) -> None:
        """Give up the lease, so that another coordinator does not wait for the end of this session."""
        if self.held:
            try:
                await assign_primary(self._store, None)
            except (Changed, StoreUnavailable) as error:
                log.info("the primary lease was not released: %s", error)

    def _vacant(self) -> bool:
        return self._candidate and self._presence.held and primary_of(self._store) is None

    async def _claim(self) -> None:
        try:
            await assign_primary(self._store, self._node)
        except (Changed, StoreUnavailable):
            await self._clock.sleep(0.1)


LEASE: ComponentKey[Lease] = ComponentKey("lease")
