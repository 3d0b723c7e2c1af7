"""Presence: the ephemeral record of a node whose agent is alive, held by one process at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pvcd.clock import Clock
from pvcd.declare.context import ComponentKey
from pvcd.errors import Changed, StoreUnavailable
from pvcd.process import ProcessIdentity
from pvcd.records import Name, Record
from pvcd.store import Create, Delete, Link, Store

log = logging.getLogger(__name__)


class Presence(Record, path="/presence/{node}", ephemeral=True):
    """The presence of a node: its agent is alive. The record goes with the agent's ZooKeeper session."""

    node: Name
    session: int
    process: ProcessIdentity
    since: float


class PresenceHolder:
    """Holds this node's presence, and enters again after a lost ZooKeeper session."""

    def __init__(self, store: Store, clock: Clock, node: str, on_change: Callable[[bool], None]) -> None:
        self.held = False
        self._store = store
        self._clock = clock
        self._node = node
        self._process = ProcessIdentity.current()
        self._on_change = on_change
        self._entering: asyncio.Task[None] | None = None
        store.on_link(self._linked)

    async def enter(self) -> None:
        """Create the presence and return; wait while another living agent of this name holds it."""
        warned = False
        while not self.held:
            try:
                other = await self._store.read(Presence, self._node)
                if other is None or other.process == self._process or other.process.has_ended():
                    await self._take(other)
                    continue
                if not warned:
                    log.warning(
                        "another agent of node %s is alive (process %d): waiting", self._node, other.process.pid
                    )
                    warned = True
                await self._store.wait_for(lambda: self._store.get(Presence, self._node) is None, 5.0)
            except Changed:
                continue
            except StoreUnavailable as error:
                log.warning("%s", error)
                await self._clock.sleep(0.5)
                await self._store.live()

    async def leave(self) -> None:
        """Remove the presence."""
        if self._entering:
            self._entering.cancel()
        mine = self._store.get(Presence, self._node)
        self._hold(False)
        if mine and mine.session == self._store.tree.session:
            try:
                await self._store.write(Delete(mine))
            except (Changed, StoreUnavailable) as error:
                log.info("the presence was not removed and goes with the session: %s", error)

    async def _take(self, other: Presence | None) -> None:
        session = self._store.tree.session
        if other is None or other.session != session:
            mine = Presence(node=self._node, session=session, process=self._process, since=self._clock.time())
            await self._store.write(*([Delete(other)] if other else []), Create(mine))
        # The session or the link may have been lost just when the answer came.
        self._hold(self._store.tree.session == session and self._store.tree.link is Link.CONNECTED)

    def _linked(self, link: Link) -> None:
        if link is Link.CONNECTED:
            self._entering = asyncio.ensure_future(self.enter())
        else:
            if self._entering:
                self._entering.cancel()
            self._hold(False)

    def _hold(self, held: bool) -> None:
        if held != self.held:
            self.held = held
            self._on_change(held)


PRESENCE: ComponentKey[PresenceHolder] = ComponentKey("presence")
