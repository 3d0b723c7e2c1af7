"""The rules for nodes, and their states for other plugins."""

from __future__ import annotations

from pvcd import Conflict, Context, Message, NotFound, Put, Refused, assign_primary, matcher, retried
from pvcd_plugins.node.operations import DRAIN, RESTORE
from pvcd_plugins.node.records import CoordinatorState, DaemonState, DomainState, Node, NodeReport
from pvcd_plugins.node.states import SETTLED, coordinator_state, daemon_state, domain_state, fact, report_of, takes_vms
from pvcd_plugins.node.views import NodeView, node_view

# fmt: off
__all__ = [
    "DRAIN", "RESTORE", "CoordinatorState", "DaemonState", "DomainState", "Node", "NodeReport", "coordinator_state",
    "daemon_state", "domain_state", "fact", "find", "late_warning", "report_of", "takes_vms",
]
# fmt: on


def find(context: Context, name: str) -> Node:
    """Return the node of this exact name."""
    node = context.store.get(Node, name)
    if node is None:
        raise NotFound("node", name)
    return node


def list_nodes(context: Context, limit: str | None) -> list[NodeView]:
    """Return all nodes whose name matches a limit."""
    matches = matcher(limit)
    return [node_view(context, node) for node in context.store.all(Node) if matches((node.name,))]


def late_warning(context: Context, node: Node) -> list[str] | None:
    """Return the warning of a request to a node that cannot act on it now, or None."""
    state = daemon_state(context, node)
    if state is DaemonState.RUN:
        return None
    return [f"Node {node.name!r} is in daemon state {str(state)!r}. It acts on the request when it runs."]


@retried
async def set_domain_state(context: Context, name: str, wanted: DomainState) -> Message:
    """Request that a node is flushed or ready; no effect if it is so already."""
    node = find(context, name)
    if node.domain_state is wanted and domain_state(context, node) is SETTLED[wanted]:
        return Message(message=f"Node {name!r} is already {SETTLED[wanted]}.")
    await context.store.write(Put(node.changed(domain_state=wanted, generation=node.generation + 1)))
    return Message(
        message=f"Domain state {str(wanted)!r} requested for node {name!r}.", warnings=late_warning(context, node)
    )


@retried
async def set_coordinator_state(context: Context, name: str, wanted: CoordinatorState) -> Message:
    """Make a node the primary, or another coordinator instead of it."""
    node, cannot = find(context, name), f"Cannot make node {name!r} {wanted}:"
    if coordinator_state(context, node) is CoordinatorState.CLIENT:
        raise Refused(f"{cannot} it is not a coordinator.", code="not-a-coordinator")
    if coordinator_state(context, node) is wanted:
        return Message(message=f"Node {name!r} is already {wanted}.")
    chosen = node if wanted is CoordinatorState.PRIMARY else _other_coordinator(context, name)
    if chosen is None:
        raise Conflict(f"{cannot} no other coordinator runs that could be primary.", code="no-other-coordinator")
    state = daemon_state(context, chosen)
    if state is not DaemonState.RUN:
        raise Conflict(f"{cannot} it is in daemon state {str(state)!r}.", code="node-not-running")
    await assign_primary(context.store, chosen.name)
    return Message(message=f"Node {chosen.name!r} made primary.")


def _other_coordinator(context: Context, name: str) -> Node | None:
    for node in context.store.all(Node):
        if node.coordinator and node.name != name and daemon_state(context, node) is DaemonState.RUN:
            return node
    return None
