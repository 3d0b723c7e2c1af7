"""What a node does when it is asked to be flushed or ready."""

from __future__ import annotations

from pvcd import Again, Context, Handlers
from pvcd_plugins.node.keepalive import KEEPALIVE
from pvcd_plugins.node.records import DomainState, Node
from pvcd_plugins.node.service import DRAIN, RESTORE, report_of

handlers = Handlers()
LOOK_AGAIN = 1.0


@handlers.on(Node)
async def follow(context: Context, node: Node) -> Again | None:
    """Let the plugins clear this node or bring things back, until nothing remains to be done."""
    if node.name != context.node or report_of(context, node.name).settled_turn == node.turn:
        return None
    asked = DRAIN if node.domain_state is DomainState.FLUSH else RESTORE
    answers = await context.operations.ask(context, asked, node=node.name)
    remaining = tuple(sorted(name for names in answers for name in names))
    if remaining:
        if remaining != report_of(context, node.name).remaining:
            await context[KEEPALIVE].say(remaining=remaining)
        return Again(LOOK_AGAIN)
    await context[KEEPALIVE].say(remaining=(), settled_turn=node.turn)
    return None
