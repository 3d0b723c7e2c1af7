"""How the nodes are."""

from __future__ import annotations

from pvcd import Context, Health, HealthCheck, primary_of
from pvcd_plugins.node.records import DaemonState, Node
from pvcd_plugins.node.service import daemon_state


async def look(context: Context) -> Health:
    """Whether one of the nodes leads, and which are dead."""
    nodes = context.store.all(Node)
    dead = [node.name for node in nodes if daemon_state(context, node) is DaemonState.DEAD]
    gone = f" Dead: {', '.join(dead)}." if dead else ""
    primary = primary_of(context.store)
    if primary is None:
        return Health("failed", f"No node is the primary.{gone}")
    return Health("warning" if dead else "ok", f"Of {len(nodes)} nodes {primary} is the primary.{gone}")


CHECK = HealthCheck("nodes", "The agents of all nodes, and whether one of them is the primary", look)
