"""The keepalive: registers this node and publishes at intervals that it lives and what it is like.

It never waits for anything but the store: every fact is read beside it, and a slow or failing one keeps its last value.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

from pydantic import Field

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
    Section,
    SettingsSection,
    StoreUnavailable,
)
from pvcd_plugins.node.records import DaemonState, Node, NodeReport

log = logging.getLogger(__name__)


class KeepaliveSettings(Section):
    """pvc.keepalive: how often a node says how it is"""

    interval: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds from one keepalive to the next."""


SECTION = SettingsSection("keepalive", KeepaliveSettings)


class Keepalive:
    """The only writer of this node's report."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._interval = context.settings.of(KeepaliveSettings).interval
        self._facts: dict[str, Any] = {}
        self._unread = {fact.name for fact in context.declared(NodeFact)}
        self._said: dict[str, Any] = {}

    async def register(self) -> None:
        """Make sure that the cluster knows this node, and say that it starts."""
        context = self._context
        coordinator = context.settings.node.coordinator
        node = await context.store.read(Node, context.node)
        if node is None:
            await context.store.write(Create(Node(name=context.node, coordinator=coordinator)))
        elif node.coordinator != coordinator:
            await context.store.write(Put(node.changed(coordinator=coordinator)))
        earlier = await context.store.read(NodeReport, context.node)
        self._facts = dict(earlier.facts) if earlier else {}
        await self.say(daemon_state=DaemonState.INIT)

    async def say(self, **values: Any) -> None:
        """Publish values of the report now, and keep saying them."""
        self._said.update(values)
        now = self._context.clock.time()
        values = self._said | {"facts": dict(self._facts), "updated": now}
        await self._context.store.upsert(NodeReport, self._context.node, **values)

    async def run(self) -> None:
        """Publish at each interval, for as long as the agent lives."""
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
        """The node is in `init` until each fact has been read, or found unreadable, once."""
        try:
            await self.say(daemon_state=DaemonState.INIT if self._unread else DaemonState.RUN)
        except (StoreUnavailable, Changed) as error:
            log.warning("keepalive: %s", error)

    async def _follow(self, fact: NodeFact) -> None:
        """Read one fact again and again."""
        while True:
            try:
                self._facts[fact.name] = await fact.read(self._context)
            except PvcdError as error:
                log.warning("fact %s keeps its last value: %s", fact.name, error)
            except Exception:
                log.exception("fact %s keeps its last value", fact.name)
            if fact.name in self._unread:
                self._unread.discard(fact.name)
                await self._beat()
            await self._context.clock.sleep(self._interval)


@contextlib.asynccontextmanager
async def open_keepalive(context: Context) -> AsyncIterator[Keepalive]:
    """The keepalive, from this node's registration to its farewell."""
    keepalive = Keepalive(context)
    await keepalive.register()
    beating = asyncio.ensure_future(keepalive.run())
    try:
        yield keepalive
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        with contextlib.suppress(PvcdError):
            await keepalive.say(daemon_state=DaemonState.STOP)


KEEPALIVE: ComponentKey[Keepalive] = ComponentKey("keepalive")
COMPONENT = Component(KEEPALIVE, open_keepalive, roles=(Role.NODE,))
