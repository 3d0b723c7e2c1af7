"""The handlers of nodes: flush and ready on the node itself, the death of nodes on the primary."""

from __future__ import annotations

from pvcd import Context, Create, Delete, Handlers, Presence, Requeue
from pvcd_plugins.node.keepalive import KEEPALIVE
from pvcd_plugins.node.operations import DRAIN, RESTORE
from pvcd_plugins.node.records import DaemonState, DomainState, Node, NodeDeath
from pvcd_plugins.node.states import SETTLED, daemon_state, report_of

handlers = Handlers()
primary = Handlers(scope="primary")
REQUEUE_SECONDS = 1.0


@handlers.on(Node)
async def follow(context: Context, node: Node) -> Requeue | None:
    """Have the plugins clear this node or bring things back, until nothing remains to be done."""
    if node.name != context.node or report_of(context, node.name).settled_generation == node.generation:
        return None
    question = DRAIN if node.domain_state is DomainState.FLUSH else RESTORE
    answers = await context.operations.ask(context, question, node=node.name)
    remaining = tuple(sorted(name for names in answers for name in names))
    if remaining:
        if remaining != report_of(context, node.name).remaining:
            await context[KEEPALIVE].publish(remaining=remaining)
        return Requeue(REQUEUE_SECONDS)
    await context[KEEPALIVE].publish(remaining=(), settled_generation=node.generation)
    settled = {"node": node.name, "domain_state": str(SETTLED[node.domain_state])}
    await context.operations.notify(context, "node-settled", settled)
    return None


@primary.on(Node)
async def watch(context: Context, node: Node) -> None:
    """Notify of a node's death once."""
    dead, known = daemon_state(context, node) is DaemonState.DEAD, context.store.get(NodeDeath, node.name)
    if dead and known is None:
        await context.operations.notify(context, "node-dead", {"node": node.name})
        await context.store.write(Create(NodeDeath(name=node.name, since=context.clock.time())))
    elif known and not dead:
        await context.store.write(Delete(known))


@primary.on(Presence)
async def appeared(context: Context, presence: Presence) -> None:
    """Reconcile a node that may live again."""
    if node := context.store.get(Node, presence.node):
        context.wake(node)


@primary.gone(Presence)
async def disappeared(context: Context, presence: Presence) -> None:
    """Reconcile a node that may be dead."""
    await appeared(context, presence)
