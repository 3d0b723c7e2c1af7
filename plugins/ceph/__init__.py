"""Storage on Ceph: OSDs, pools, volumes and their snapshots, seen by all and changed through the primary."""

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
from pvcd_plugins.ceph import components, handlers, health, records, refresh, routes, service, settings, views

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_settings() -> list[SettingsSection]:
    """pvc.ceph"""
    return [settings.SECTION]


@hookimpl
def register_records() -> list[type[Record]]:
    """What Ceph said last."""
    return [records.CephStatus, records.Osd, records.Pool, records.Volume, records.Snapshot]


@hookimpl
def register_components() -> list[Component[Any]]:
    """The doors to Ceph and to this node's disks; the mirror; in the API all volumes and snapshots, encoded."""
    return [*components.COMPONENTS, refresh.COMPONENT, *views.COMPONENTS]


@hookimpl
def register_routes() -> list[Routes]:
    """The manual's chapter: storage endpoints."""
    return [routes.routes]


@hookimpl
def register_handlers() -> list[Handlers]:
    """What the primary does with Ceph, and each node with its disks."""
    return [handlers.primary, handlers.handlers]


@hookimpl
def register_operations() -> list[OperationKind]:
    """A volume is renamed or resized, by one route."""
    return service.OPERATIONS


@hookimpl
def register_health_checks() -> list[HealthCheck]:
    """What Ceph says of itself."""
    return [health.CHECK]
