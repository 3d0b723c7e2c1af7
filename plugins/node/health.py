"""The health of the nodes."""

from __future__ import annotations

from pvcd import Context, Health, HealthCheck, primary_of
from pvcd_plugins.node.records import DaemonState, Node
from pvcd_plugins.node.service import daemon_state


async def look(context: Context) -> Health:
    """Check that there is a primary, and that no node is dead."""
    nodes = context.store.all(Node)
    dead = [node.name for node in nodes if daemon_state(context, node) is DaemonState.DEAD]
    gone = f" Dead: {', '.join(map(repr, dead))}." if dead else ""
    primary = primary_of(context.store)
    if primary is None:
        return Health("failed", f"No node is primary.{gone}")
    return Health("warning" if dead else "ok", f"Nodes: {len(nodes)}. Primary: {primary!r}.{gone}")


CHECK = HealthCheck("nodes", "The agents of all nodes, and the primary", look)
