"""Networks of VMs: bridges on every node, and gateways, DHCP, DNS and packet filters for the managed ones."""

from typing import Any

from pvcd import PLUGIN_API_1, Component, Handlers, OperationKind, Record, Routes, SettingsSection, hookimpl
from pvcd_plugins.network import components, handlers, operations, records, routes, settings, views

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_settings() -> list[SettingsSection]:
    """pvc.network"""
    return [settings.SECTION]


@hookimpl
def register_records() -> list[type[Record]]:
    """Networks, leases and ACLs as they should be, and the reports of the nodes."""
    return [
        records.Network,
        records.NetworkName,
        records.Plan,
        records.Reservations,
        records.Acls,
        records.Lease,
        records.NodeNetwork,
        records.ServedNetworks,
    ]


@hookimpl
def register_components() -> list[Component[Any]]:
    """The doors of nodes and of the primary; in the API the encoded list of networks."""
    return [*components.COMPONENTS, *views.COMPONENTS]


@hookimpl
def register_routes() -> list[Routes]:
    """The manual's chapter: network endpoints."""
    return [routes.routes]


@hookimpl
def register_handlers() -> list[Handlers]:
    """Bridges and packet filters on every node; gateways, DHCP and DNS on the primary."""
    return [handlers.handlers, handlers.primary]


@hookimpl
def register_operations() -> list[OperationKind]:
    """Leases taken and ended."""
    return operations.OPERATIONS
