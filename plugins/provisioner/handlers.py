"""What the primary does: it forgets what VMs were told that are gone, and tells the others."""

from __future__ import annotations

from pvcd import Context, Delete, Handlers, retried
from pvcd_plugins.provisioner.metadata import Told
from pvcd_plugins.provisioner.records import Built
from pvcd_plugins.vm.service import VM

primary = Handlers(scope="primary")


@primary.gone(VM)
async def forget(context: Context, vm: VM) -> None:
    """What a VM was told goes with it."""
    await _forget(context, vm)


@retried
async def _forget(context: Context, vm: VM) -> None:
    built = context.store.get(Built, vm.uuid)
    if built is not None and context.store.get(VM, vm.uuid) is None:
        await context.store.write(Delete(built))


async def describe(context: Context, vm: VM) -> Told:
    """What a VM is told besides what its record says."""
    built = context.store.get(Built, vm.uuid)
    return Told(built.userdata, built.ssh_keys) if built else Told()
