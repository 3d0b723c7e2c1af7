"""The manual's chapter: VM endpoints."""

from __future__ import annotations

from typing import Annotated

from pvcd import Context, Message, Produces, Routes, Text
from pvcd_plugins.vm import params, service
from pvcd_plugins.vm.views import VMConsole, VMList, VMNode, VMState
from pvcd_plugins.vm.volumes import VolumeLock

routes = Routes("/api/v1/vm", tag="Virtual machines")


@routes.get()
async def list_vms(
    context: Context, limit: params.Limit = None, node: params.OnNode = None, state: params.InState = None
) -> VMList:
    """List the VMs, sorted by name: all, or only matches of every given filter."""
    return service.list_vms(context, limit, node, state)


@routes.post(operation="vm-define")
async def define(
    context: Context,
    xml: params.Xml,
    node: params.TargetNode = None,
    limit: params.NodeLimit = None,
    selector: params.Selector = None,
    autostart: params.Autostart = False,
) -> Message:
    """Define a new VM from libvirt domain XML, stopped; its disks and other resources must exist already."""
    return await service.define(context, xml, node, limit, selector, autostart)


@routes.get("/{vm}")
async def get_vm(context: Context, vm: params.VMKey) -> VMList:
    """Return one VM by name or UUID, as a list of one."""
    return service.get_vm(context, vm)


@routes.post("/{vm}", operation="vm-update")
async def update_metadata(
    context: Context,
    vm: params.VMKey,
    limit: params.NodeLimit = None,
    selector: params.Selector = None,
    autostart: params.Autostart = False,
    no_autostart: params.NoAutostart = False,
) -> Message:
    """Change a VM's metadata; at least one value is required."""
    return await service.update_metadata(context, vm, limit, selector, autostart, no_autostart)


@routes.put("/{vm}", operation="vm-modify")
async def modify(context: Context, vm: params.VMKey, xml: params.Xml, restart: params.Restart = False) -> Message:
    """Replace a VM's definition; without `restart` the change takes effect at its next start."""
    return await service.modify(context, vm, xml, restart)


@routes.delete("/{vm}", operation="vm-remove")
async def remove(context: Context, vm: params.VMKey, delete_disks: params.DeleteDisks = False) -> Message:
    """Forcibly stop and remove a VM; replies when it is gone."""
    return await service.remove(context, vm, delete_disks)


@routes.get("/{vm}/state")
async def get_state(context: Context, vm: params.VMKey) -> VMState:
    """Return the state of a VM, and whether it runs."""
    return service.get_state(context, vm)


@routes.post("/{vm}/state", operation="vm-{state}")
async def set_state(context: Context, vm: params.VMKey, state: params.Wanted) -> Message:
    """Request a state. A `shutdown` that takes longer than 90 s becomes a `stop`."""
    return await service.set_state(context, vm, state)


@routes.get("/{vm}/node")
async def get_node(context: Context, vm: params.VMKey) -> VMNode:
    """Return the node of a VM, and the one that it was migrated from."""
    found = service.find(context, vm)
    return VMNode(name=found.name, node=found.node, last_node=found.last_node)


@routes.post("/{vm}/node", operation="vm-{action}")
async def move(
    context: Context,
    vm: params.VMKey,
    action: params.Move,
    node: params.TargetNode = None,
    selector: params.Selector = None,
    permanent: params.Permanent = False,
    force: params.Force = False,
) -> Message:
    """Migrate a VM to another node, or back to the one that it was migrated from."""
    return await service.move(context, vm, action, node, selector, permanent, force)


@routes.get("/{vm}/locks")
async def get_locks(context: Context, vm: params.VMKey) -> list[VolumeLock]:
    """List the RBD locks of a VM's volumes."""
    return await service.locks(context, vm)


@routes.post("/{vm}/locks", operation="vm-flush-locks")
async def clear_locks(context: Context, vm: params.VMKey) -> Message:
    """Break all RBD locks of a stopped VM's volumes; their holders can never write again."""
    return await service.clear_locks(context, vm)


@routes.get("/{vm}/dump")
async def dump(context: Context, vm: params.VMKey) -> Annotated[Text, Produces("application/xml")]:
    """Return the libvirt domain XML of a VM, as it was defined."""
    return Text(service.find(context, vm).xml, "application/xml")


@routes.get("/{vm}/console")
async def get_console(context: Context, vm: params.VMKey, lines: params.Lines = 100) -> VMConsole:
    """Return the last lines that a VM wrote to its serial console."""
    return await service.console(context, vm, lines)
