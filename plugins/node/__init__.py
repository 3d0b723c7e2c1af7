"""Nodes: who is in the cluster, what each says of itself, and who is primary."""

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
from pvcd_plugins.node import facts, handlers, health, keepalive, records, routes, service

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_settings() -> list[SettingsSection]:
    """pvc.keepalive"""
    return [keepalive.SECTION]


@hookimpl
def register_records() -> list[type[Record]]:
    """What a node should be, what it says that it is, and that it is dead."""
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
    """Flush and ready; the primary sees who dies."""
    return [handlers.handlers, handlers.primary]


@hookimpl
def register_operations() -> list[OperationKind]:
    """A node has settled, or died."""
    return service.OPERATIONS


@hookimpl
def register_health_checks() -> list[HealthCheck]:
    """Nodes that are dead, and whether one of them leads."""
    return [health.CHECK]
