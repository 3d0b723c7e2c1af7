"""Storage on Ceph: OSDs, pools, volumes and their snapshots, mirrored for all and changed by the primary."""

from typing import Any

from pvcd import (
    PLUGIN_API_1,
    Component,
    Handlers,
    HealthCheck,
    OperationKind,
    Record,
    Routes,
    SettingsSection,
    hookimpl,
)
from pvcd_plugins.ceph import components, handlers, health, operations, records, refresh, routes, settings, views

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_settings() -> list[SettingsSection]:
    """pvc.ceph"""
    return [settings.SECTION]


@hookimpl
def register_records() -> list[type[Record]]:
    """The mirror of Ceph."""
    return [records.CephStatus, records.Osd, records.Pool, records.Volume, records.Snapshot]


@hookimpl
def register_components() -> list[Component[Any]]:
    """The doors to Ceph and to this node's disks; the mirror; the encoded lists of volumes and snapshots."""
    return [*components.COMPONENTS, refresh.COMPONENT, *views.COMPONENTS]


@hookimpl
def register_routes() -> list[Routes]:
    """The manual's chapter: storage endpoints."""
    return [routes.routes]


@hookimpl
def register_handlers() -> list[Handlers]:
    """The handlers of the primary for Ceph, and of each node for its disks."""
    return [handlers.primary, handlers.handlers]


@hookimpl
def register_operations() -> list[OperationKind]:
    """Renaming and resizing a volume, which share a route."""
    return operations.OPERATIONS


@hookimpl
def register_health_checks() -> list[HealthCheck]:
    """The health of Ceph."""
    return [health.CHECK]
