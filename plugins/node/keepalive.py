"""The keepalive: registers this node, and publishes its report at each interval.

It waits only for the store: each fact is read in a task of its own, and a slow or failing one keeps its last value.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from pvcd import (
    PRESENCE,
    Changed,
    Component,
    ComponentKey,
    Context,
    Create,
    NodeFact,
    Put,
    PvcdError,
    Role,
    StoreUnavailable,
)
from pvcd_plugins.node.records import DaemonState, Node, NodeReport
from pvcd_plugins.node.settings import KeepaliveSettings

log = logging.getLogger(__name__)


class Keepalive:
    """The only writer of this node's report."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._interval = context.settings.of(KeepaliveSettings).interval
        self._facts: dict[str, Any] = {}
        self._unread = {fact.name for fact in context.declared(NodeFact)}
        self._values: dict[str, Any] = {}

    async def register(self) -> None:
        """Make sure that the cluster knows this node, and publish that it starts."""
        context = self._context
        coordinator = context.settings.node.coordinator
        node = await context.store.read(Node, context.node)
        if node is None:
            await context.store.write(Create(Node(name=context.node, coordinator=coordinator)))
        elif node.coordinator != coordinator:
            await context.store.write(Put(node.changed(coordinator=coordinator)))
        earlier = await context.store.read(NodeReport, context.node)
        self._facts = dict(earlier.facts) if earlier else {}
        await self.publish(daemon_state=DaemonState.INIT)

    async def publish(self, **values: Any) -> None:
        """Publish values of the report now, and repeat them with each keepalive."""
        self._values.update(values)
        now = self._context.clock.time()
        values = self._values | {"facts": dict(self._facts), "updated": now}
        await self._context.store.upsert(NodeReport, self._context.node, **values)

    async def run(self) -> None:
        """Publish the report at each interval until canceled."""
        readers = [asyncio.ensure_future(self._follow(fact)) for fact in self._context.declared(NodeFact)]
        try:
            while True:
                if self._context[PRESENCE].held:
                    await self._beat()
                await self._context.clock.sleep(self._interval)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _beat(self) -> None:
        """Publish the report; the node stays in `init` until each fact has been read once, or has failed once."""
        try:
            await self.publish(daemon_state=DaemonState.INIT if self._unread else DaemonState.RUN)
        except (StoreUnavailable, Changed) as error:
            log.warning("Cannot publish the keepalive: %s", error)

    async def _follow(self, fact: NodeFact) -> None:
        """Read one fact at each interval."""
        while True:
            try:
                self._facts[fact.name] = await fact.read(self._context)
            except PvcdError as error:
                log.warning("Cannot read the fact %r, its last value is kept: %s", fact.name, error)
            except Exception:
                log.exception("Cannot read the fact %r, its last value is kept.", fact.name)
            if fact.name in self._unread:
                self._unread.discard(fact.name)
                await self._beat()
            await self._context.clock.sleep(self._interval)


@contextlib.asynccontextmanager
async def open_keepalive(context: Context) -> AsyncIterator[Keepalive]:
    """Register this node and keep its report up to date; at the end, publish that the agent stops."""
    keepalive = Keepalive(context)
    await keepalive.register()
    beating = asyncio.ensure_future(keepalive.run())
    try:
        yield keepalive
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        with contextlib.suppress(PvcdError):
            await keepalive.publish(daemon_state=DaemonState.STOP)


KEEPALIVE: ComponentKey[Keepalive] = ComponentKey("keepalive")
COMPONENT = Component(KEEPALIVE, open_keepalive, roles=(Role.NODE,), in_memory=True)
