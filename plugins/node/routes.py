"""The manual's chapter: node endpoints."""

from __future__ import annotations

from pvcd import Context, Message, Routes
from pvcd_plugins.node import params, service
from pvcd_plugins.node.views import NodeCoordinatorState, NodeDaemonState, NodeDomainState, NodeView, node_view

routes = Routes("/api/v1/node", tag="Nodes")


@routes.get()
async def list_nodes(context: Context, limit: params.Limit = None) -> list[NodeView]:
    """List the nodes, sorted by name: all, or only names that match `limit`."""
    return service.list_nodes(context, limit)


@routes.get("/{node}")
async def get_node(context: Context, node: params.NodeName) -> list[NodeView]:
    """Return one node, as a list of one."""
    return [node_view(context, service.find(context, node))]


@routes.get("/{node}/daemon-state")
async def get_daemon_state(context: Context, node: params.NodeName) -> NodeDaemonState:
    """Return the state of the node's agent: init, run, shutdown, stop or dead."""
    found = service.find(context, node)
    return NodeDaemonState(name=found.name, daemon_state=service.daemon_state(context, found))


@routes.get("/{node}/coordinator-state")
async def get_coordinator_state(context: Context, node: params.NodeName) -> NodeCoordinatorState:
    """Return the node's part in leading the cluster: primary, secondary or client."""
    found = service.find(context, node)
    return NodeCoordinatorState(name=found.name, coordinator_state=service.coordinator_state(context, found))


@routes.post("/{node}/coordinator-state", operation="node-{wanted}")
async def set_coordinator_state(
    context: Context, node: params.NodeName, wanted: params.WantedCoordinatorState
) -> Message:
    """Make the node the primary, or another coordinator instead of it. No effect if it is so already."""
    return await service.set_coordinator_state(context, node, wanted)


@routes.get("/{node}/domain-state")
async def get_domain_state(context: Context, node: params.NodeName) -> NodeDomainState:
    """Return whether VMs may run on the node: ready, flush, flushed or unflush."""
    found = service.find(context, node)
    return NodeDomainState(name=found.name, domain_state=service.domain_state(context, found))


@routes.post("/{node}/domain-state", operation="node-{wanted}")
async def set_domain_state(context: Context, node: params.NodeName, wanted: params.WantedDomainState) -> Message:
    """Clear the node of VMs, or bring them back. Repeated, it starts again only what did not finish."""
    return await service.set_domain_state(context, node, wanted)
