"""Virtual machines: defined as libvirt XML, placed on a node, started, stopped and watched there."""

from typing import Any

from pvcd import (
    PLUGIN_API_1,
    Component,
    Guard,
    Handlers,
    Listener,
    NodeFact,
    NodeSelector,
    OperationKind,
    Record,
    Routes,
    SettingsSection,
    hookimpl,
)
from pvcd_plugins.node.service import DRAIN, RESTORE
from pvcd_plugins.vm import (
    allocation,
    components,
    handlers,
    networks,
    records,
    routes,
    selectors,
    settings,
    storage,
    views,
    volumes,
)

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_settings() -> list[SettingsSection]:
    """pvc.vm"""
    return [settings.SECTION]


@hookimpl
def register_records() -> list[type[Record]]:
    """What a VM should be, its name, what its node says of it, and who may write to a volume."""
    return [records.VM, records.VMName, records.VMReport, records.VolumeClaim]


@hookimpl
def register_components() -> list[Component[Any]]:
    """The hypervisor of this node and its guests' way to Ceph; in the API all VMs, encoded; what VMs take and use."""
    return [
        *components.COMPONENTS,
        storage.COMPONENT,
        views.COMPONENT,
        allocation.COMPONENT,
        volumes.COMPONENT,
        networks.COMPONENT,
    ]


@hookimpl
def register_node_facts() -> list[NodeFact]:
    """The running guests, and what the hypervisor can run."""
    return components.FACTS


@hookimpl
def register_node_selectors() -> list[NodeSelector]:
    """mem, vcpus, load and vms."""
    return selectors.SELECTORS


@hookimpl
def register_routes() -> list[Routes]:
    """The manual's chapter: VM endpoints."""
    return [routes.routes]


@hookimpl
def register_handlers() -> list[Handlers]:
    """What a node does when a VM changes."""
    return [handlers.handlers]


@hookimpl
def register_operations() -> list[OperationKind]:
    """A guest is started, or has ended."""
    return handlers.OPERATIONS


@hookimpl
def register_guards() -> list[Guard]:
    """A volume that a VM uses is not taken away from it."""
    return volumes.GUARDS


@hookimpl
def register_listeners() -> list[Listener]:
    """A node's flush shuts its VMs down, and its return brings them back; a network that they use stays."""
    return [
        Listener("vm-drain", (DRAIN,), handlers.drain),
        Listener("vm-restore", (RESTORE,), handlers.restore),
        *networks.LISTENERS,
    ]
