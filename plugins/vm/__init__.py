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
from pvcd_plugins.vm import (
    components,
    facts,
    handlers,
    indexes,
    operations,
    records,
    routes,
    selectors,
    settings,
    views,
)

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_settings() -> list[SettingsSection]:
    """pvc.vm"""
    return [settings.SECTION]


@hookimpl
def register_records() -> list[type[Record]]:
    """A VM as it should be, its name, its node's report, and its claims on volumes and MAC addresses."""
    return [records.VM, records.VMName, records.VMReport, records.VolumeClaim, records.MacClaim]


@hookimpl
def register_components() -> list[Component[Any]]:
    """The node's hypervisor and its guests' way to Ceph; the indexes of VMs; in the API all VMs, encoded."""
    return [*components.COMPONENTS, *indexes.COMPONENTS, views.COMPONENT]


@hookimpl
def register_node_facts() -> list[NodeFact]:
    """The running guests, and what the hypervisor can run."""
    return facts.FACTS


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
    """A node's reaction to a change of a VM."""
    return [handlers.handlers]


@hookimpl
def register_operations() -> list[OperationKind]:
    """The start of a guest, and its end."""
    return operations.OPERATIONS


@hookimpl
def register_guards() -> list[Guard]:
    """A volume that a VM uses is not taken away."""
    return operations.GUARDS


@hookimpl
def register_listeners() -> list[Listener]:
    """A flush shuts the node's VMs down, its return starts them again; a network that VMs use is not removed."""
    return operations.LISTENERS
