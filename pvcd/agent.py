"""The node agent's life: enter the cluster, open the components, run the handlers, and stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from pvcd import schema
from pvcd.context import ComponentKey, Context, open_components
from pvcd.handlers import HandlerRunner, Scope
from pvcd.lease import Lease
from pvcd.sessions import Presence

log = logging.getLogger(__name__)
PRESENCE: ComponentKey[Presence] = ComponentKey("presence")
LEASE: ComponentKey[Lease] = ComponentKey("lease")


@contextlib.asynccontextmanager
async def agent(context: Context) -> AsyncIterator[Context]:
    """A running agent of node `context.node`; leaves the cluster in order when the block ends."""
    runner, primary_runner = _runner(context, "node"), _runner(context, "primary")
    context = context.derive(wake=runner.wake)
    async with contextlib.AsyncExitStack() as stack:
        await context.store.open()
        stack.push_async_callback(context.store.close)
        await schema.prepare(context.store)

        def allowed(held: bool) -> None:
            log.info("node %s %s the cluster", context.node, "is in" if held else "has lost touch with")
            for each in (runner, primary_runner):
                each.resume() if held else each.pause()

        presence = Presence(context.store, context.clock, context.node, allowed)
        candidate = context.settings.node.coordinator
        lease = Lease(context.store, context.clock, context.node, presence, candidate=candidate)
        context.components.update({PRESENCE: presence, LEASE: lease})
        await presence.enter()
        stack.push_async_callback(presence.leave)
        await stack.enter_async_context(open_components(context))
        runner.start(context)
        stack.push_async_callback(runner.stop)
        await stack.enter_async_context(_primary_duties(context, lease, primary_runner))
        yield context


def _runner(context: Context, scope: Scope) -> HandlerRunner:
    handlers = [handler for handler in context.registry.handlers if handler.scope == scope]
    return HandlerRunner(handlers, context.settings.handlers_resync)


@contextlib.asynccontextmanager
async def _primary_duties(context: Context, lease: Lease, runner: HandlerRunner) -> AsyncIterator[None]:
    """Run the handlers of the primary while this node holds the lease; what they write is fenced."""
    fenced = context.derive(store=context.store.fenced(lease.fence), wake=runner.wake)

    async def start() -> None:
        runner.start(fenced)

    following = asyncio.ensure_future(lease.follow(start, runner.stop))
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await lease.release()
