"""The steps that make records of the VM: reserved under its name at first, completed at the end."""

from __future__ import annotations

from uuid import UUID

from pvcd import Context, Create, Delete, Outcome, Run, retried
from pvcd_plugins.provisioner.metadata import ssh_keys_of
from pvcd_plugins.provisioner.records import Built
from pvcd_plugins.provisioner.steps.gather import blueprint_of, request_of
from pvcd_plugins.vm import service as vms


async def define(run: Run) -> Outcome:
    """Take the name for this VM, which nobody can start before it is completed."""
    blueprint = blueprint_of(run)
    system, request = blueprint.system, blueprint.request
    await run.intend(uuid=request.uuid)
    vm = await vms.reserve(
        run.context,
        blueprint.xml,
        node_limit=system.node_limit,
        selector=system.node_selector,
        autostart=system.start_with_node,
        profile=blueprint.profile.name,
    )
    built = Built(uuid=vm.uuid, userdata=run.memory["userdata"], ssh_keys=ssh_keys_of(blueprint.variables.arguments()))
    await run.context.store.write(Create(built))
    return Outcome("changed", f"VM {vm.name} ({vm.uuid}) is reserved on node {vm.node}.")


async def define_check(run: Run) -> str:
    """The name that would be taken."""
    return f"The name {request_of(run).name} is taken for it."


async def undefine(run: Run) -> None:
    """Forget what was reserved."""
    if "uuid" in run.journal:
        await forget(run.context, UUID(run.journal["uuid"]))


@retried  # since the handler of VMs that are gone may be first
async def forget(context: Context, uuid: UUID) -> None:
    """Forget the VM, unless it is one like any other by now."""
    await vms.release(context, uuid)
    built = await context.store.read(Built, uuid)
    if built is not None and context.store.get(vms.VM, uuid) is None:
        await context.store.write(Delete(built))


async def complete(run: Run) -> Outcome:
    """Let the VM be one like any other, and start it; or forget it, if only its disks are wanted."""
    request = request_of(run)
    if not request.define:
        await forget(run.context, request.uuid)
        return Outcome("changed", f"The disks of {request.name} are ready; no VM is defined.")
    await vms.complete(run.context, request.uuid, start=request.start)
    return Outcome("changed", await complete_check(run))


async def complete_check(run: Run) -> str:
    """What becomes of it."""
    request = request_of(run)
    if not request.define:
        return "No VM is defined."
    return f"VM {request.name} is defined{' and started' if request.start else ''}."
