"""What a node does when it is asked to be flushed or ready, and the primary when a node dies."""

from __future__ import annotations

from pvcd import Context, Create, Delete, Handlers, Presence, Requeue
from pvcd_plugins.node.keepalive import KEEPALIVE
from pvcd_plugins.node.records import DaemonState, DomainState, Node, NodeDeath
from pvcd_plugins.node.service import DRAIN, RESTORE, SETTLED, daemon_state, report_of

handlers = Handlers()
primary = Handlers(scope="primary")
LOOK_AGAIN = 1.0


@handlers.on(Node)
async def follow(context: Context, node: Node) -> Requeue | None:
    """Let the plugins clear this node or bring things back, until nothing remains to be done."""
    if node.name != context.node or report_of(context, node.name).settled_generation == node.generation:
        return None
    asked = DRAIN if node.domain_state is DomainState.FLUSH else RESTORE
    answers = await context.operations.ask(context, asked, node=node.name)
    remaining = tuple(sorted(name for names in answers for name in names))
    if remaining:
        if remaining != report_of(context, node.name).remaining:
            await context[KEEPALIVE].say(remaining=remaining)
        return Requeue(LOOK_AGAIN)
    await context[KEEPALIVE].say(remaining=(), settled_generation=node.generation)
    settled = {"node": node.name, "domain_state": str(SETTLED[node.domain_state])}
    await context.operations.notify(context, "node-settled", settled)
    return None


@primary.on(Node)
async def watch(context: Context, node: Node) -> None:
    """Tell of a node's death once."""
    dead, told = daemon_state(context, node) is DaemonState.DEAD, context.store.get(NodeDeath, node.name)
    if dead and told is None:
        await context.operations.notify(context, "node-dead", {"node": node.name})
        await context.store.write(Create(NodeDeath(name=node.name, since=context.clock.time())))
    elif told and not dead:
        await context.store.write(Delete(told))


@primary.on(Presence)
async def look_again(context: Context, presence: Presence) -> None:
    """A node may live again."""
    if node := context.store.get(Node, presence.node):
        context.wake(node)


@primary.gone(Presence)
async def look_after(context: Context, presence: Presence) -> None:
    """A node may be dead."""
    await look_again(context, presence)
