"""Nodes: which are in the cluster, what each reports of itself, and which one is primary."""

from pvcd import (
    PLUGIN_API_1,
    Component,
    Handlers,
    HealthCheck,
    NodeFact,
    OperationKind,
    Record,
    Routes,
    SettingsSection,
    hookimpl,
)
from pvcd_plugins.node import facts, handlers, health, keepalive, operations, records, routes, settings

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_settings() -> list[SettingsSection]:
    """pvc.keepalive"""
    return [settings.SECTION]


@hookimpl
def register_records() -> list[type[Record]]:
    """A node as it should be, its report, and its death."""
    return [records.Node, records.NodeReport, records.NodeDeath]


@hookimpl
def register_components() -> list[Component[keepalive.Keepalive]]:
    """The keepalive of this node."""
    return [keepalive.COMPONENT]


@hookimpl
def register_node_facts() -> list[NodeFact]:
    """The machine's processors, memory and system."""
    return [facts.MACHINE]


@hookimpl
def register_routes() -> list[Routes]:
    """The manual's chapter: node endpoints."""
    return [routes.routes]


@hookimpl
def register_handlers() -> list[Handlers]:
    """Flush and ready on the node; on the primary, the death of nodes."""
    return [handlers.handlers, handlers.primary]


@hookimpl
def register_operations() -> list[OperationKind]:
    """A node has settled or died."""
    return operations.OPERATIONS


@hookimpl
def register_health_checks() -> list[HealthCheck]:
    """Dead nodes, and whether there is a primary."""
    return [health.CHECK]
