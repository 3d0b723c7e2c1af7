"""Nodes: who is in the cluster, what each says of itself, and who is primary."""

from pvcd import PLUGIN_API_1, Component, Handlers, HealthCheck, NodeFact, Record, Routes, SettingsSection, hookimpl
from pvcd_plugins.node import facts, handlers, health, keepalive, records, routes

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_settings() -> list[SettingsSection]:
    """pvc.keepalive"""
    return [keepalive.SECTION]


@hookimpl
def register_records() -> list[type[Record]]:
    """What a node should be, and what it says that it is."""
    return [records.Node, records.NodeReport]


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
    """Flush and ready."""
    return [handlers.handlers]


@hookimpl
def register_health_checks() -> list[HealthCheck]:
    """Nodes that are dead, and whether one of them leads."""
    return [health.CHECK]
