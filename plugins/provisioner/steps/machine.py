"""The steps for the record of the VM: reserved first, completed at the end."""

from __future__ import annotations

from uuid import UUID

from pvcd import Check, Context, Create, Delete, Outcome, Run, retried
from pvcd_plugins.provisioner.metadata import ssh_keys_of
from pvcd_plugins.provisioner.records import GuestMetadata
from pvcd_plugins.provisioner.steps.gather import blueprint_of, request_of
from pvcd_plugins.vm import service as vms


async def define(run: Run) -> Outcome:
    """Reserve the name for this VM, which cannot be started before it is completed."""
    blueprint = blueprint_of(run)
    system, request = blueprint.system, blueprint.request
    await run.intend(uuid=request.uuid)
    vm = await vms.reserve(
        run.context,
        blueprint.xml,
        task=run.task.id,
        node_limit=system.node_limit,
        selector=system.node_selector,
        autostart=system.start_with_node,
        profile=blueprint.profile.name,
    )
    keys = ssh_keys_of(blueprint.variables.arguments())
    metadata = GuestMetadata(uuid=vm.uuid, userdata=run.memory["userdata"], ssh_keys=keys)
    await run.context.store.write(Create(metadata), Check(vm))
    return Outcome("changed", f"VM {vm.name!r} ({vm.uuid}) reserved on node {vm.node!r}.")


async def define_check(run: Run) -> str:
    """Name the VM to reserve."""
    return f"VM {request_of(run).name!r} to be reserved."


async def undefine(run: Run) -> None:
    """Release the reserved VM."""
    if "uuid" in run.journal:
        await forget(run.context, UUID(run.journal["uuid"]))


@retried  # the handler of removed VMs may be first
async def forget(context: Context, uuid: UUID) -> None:
    """Remove the VM and its metadata, unless the VM is completed by now."""
    await vms.release(context, uuid)
    metadata = await context.store.read(GuestMetadata, uuid)
    if metadata is not None and context.store.get(vms.VM, uuid) is None:
        await context.store.write(Delete(metadata))


async def complete(run: Run) -> Outcome:
    """Make the VM an ordinary one, and start it; or remove it, if only its disks are wanted."""
    request = request_of(run)
    if not request.define:
        await forget(run.context, request.uuid)
        return Outcome("changed", f"Disks of VM {request.name!r} ready; no VM defined.")
    await vms.complete(run.context, request.uuid, start=request.start)
    return Outcome("changed", f"VM {request.name!r} defined{' and started' if request.start else ''}.")


async def complete_check(run: Run) -> str:
    """Say whether the VM would be defined and started."""
    request = request_of(run)
    if not request.define:
        return "No VM to be defined."
    return f"VM {request.name!r} to be defined{' and started' if request.start else ''}."
