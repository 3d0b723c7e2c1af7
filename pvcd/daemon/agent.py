"""The node agent: enter the cluster, open the components, run the handlers, and stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from pvcd.cluster import schema
from pvcd.cluster.dispatcher import HandlerRunner
from pvcd.cluster.lease import LEASE, Lease
from pvcd.cluster.presence import PRESENCE, PresenceHolder
from pvcd.daemon.components import open_components
from pvcd.declare.context import Context, Role
from pvcd.declare.handlers import Handler, Scope

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def agent(context: Context) -> AsyncIterator[Context]:
    """Run the agent of node `context.node` until the block ends; then it leaves the cluster in order."""
    runner, primary_runner = _runner(context, "node"), _runner(context, "primary")
    context = context.derive(wake=runner.wake)
    async with contextlib.AsyncExitStack() as stack:
        await context.store.open()
        stack.push_async_callback(context.store.close)
        await schema.prepare(context.store)

        def presence_changed(held: bool) -> None:
            log.info("node %s has %s the cluster", context.node, "entered" if held else "lost its presence in")
            runner.resume() if held else runner.pause()
            primary_runner.resume() if lease.held else primary_runner.pause()
            lease.wake()

        presence = PresenceHolder(context.store, context.clock, context.node, presence_changed)
        candidate = context.settings.node.coordinator
        # When the link is lost, a third of the session's time is left, or more.
        grace = context.settings.zookeeper.session_timeout / 3
        lease = Lease(context.store, context.clock, context.node, presence, candidate=candidate, grace=grace)
        context.components.update({PRESENCE: presence, LEASE: lease})
        await presence.enter()
        stack.push_async_callback(presence.leave)
        await stack.enter_async_context(open_components(context))
        runner.start(context)
        stack.push_async_callback(runner.stop)
        await stack.enter_async_context(_primary_duties(context, lease, primary_runner))
        yield context


def _runner(context: Context, scope: Scope) -> HandlerRunner:
    handlers = [handler for handler in context.declared(Handler) if handler.scope == scope]
    return HandlerRunner(handlers, context.settings.handlers_resync)


@contextlib.asynccontextmanager
async def _primary_duties(context: Context, lease: Lease, runner: HandlerRunner) -> AsyncIterator[None]:
    """Open the primary's components and run its handlers, with fenced writes, while this node holds the lease."""
    fenced = context.derive(role=Role.PRIMARY, store=context.store.fenced(lease.fence), wake=runner.wake)

    @contextlib.asynccontextmanager
    async def duties() -> AsyncIterator[None]:
        async with open_components(fenced):
            runner.resume()
            runner.start(fenced)
            try:
                yield
            finally:
                await runner.stop()

    following = asyncio.ensure_future(lease.follow(duties))
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await lease.release()
