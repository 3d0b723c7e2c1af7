"""Virtual machines: defined as libvirt XML, placed on a node, started, stopped and watched there."""

from typing import Any

from pvcd import (
    PLUGIN_API_1,
    Component,
    Handlers,
    Listener,
    NodeFact,
    NodeSelector,
    Record,
    Routes,
    SettingsSection,
    hookimpl,
)
from pvcd_plugins.node.service import DRAIN, RESTORE
from pvcd_plugins.vm import allocation, components, handlers, records, routes, selectors, settings, views

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_settings() -> list[SettingsSection]:
    """pvc.vm"""
    return [settings.SECTION]


@hookimpl
def register_records() -> list[type[Record]]:
    """What a VM should be, its name, and what its node says of it."""
    return [records.VM, records.VMName, records.VMReport]


@hookimpl
def register_components() -> list[Component[Any]]:
    """The hypervisor of this node; in the API all VMs, encoded; and what VMs take of each node."""
    return [*components.COMPONENTS, views.COMPONENT, allocation.COMPONENT]


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
def register_listeners() -> list[Listener]:
    """A node's flush shuts its VMs down, and its return brings them back."""
    return [Listener("vm-drain", (DRAIN,), handlers.drain), Listener("vm-restore", (RESTORE,), handlers.restore)]
