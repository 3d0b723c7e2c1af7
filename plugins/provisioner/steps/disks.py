"""The steps for the disks of the VM: created, mapped, formatted, installed on, and unmapped."""

from __future__ import annotations

from pathlib import Path

from pvcd import Outcome, Run
from pvcd_plugins.ceph import service as storage
from pvcd_plugins.ceph.service import CLUSTER, MAPPING
from pvcd_plugins.provisioner import filesystems, installation, volumes
from pvcd_plugins.provisioner.components import INSTALLATION
from pvcd_plugins.provisioner.records import Disk
from pvcd_plugins.provisioner.settings import ProvisionerSettings
from pvcd_plugins.provisioner.steps.gather import blueprint_of, request_of
from pvcd_plugins.provisioner.volumes import Leftovers, Wanted
from pvcd_plugins.vm import service as vms


async def create(run: Run) -> Outcome:
    """Create the volumes."""
    blueprint = blueprint_of(run)
    wanted = [
        Wanted(disk.pool, blueprint.volume(disk), disk.disk_size_gb, disk.source_volume) for disk in blueprint.disks
    ]
    if not wanted:
        return Outcome("skipped", "The VM has no disks.")
    await volumes.create(run.context[CLUSTER], wanted, run.intend)
    await storage.refresh_volumes(run.context, [(each.pool, each.volume) for each in wanted])
    return Outcome("changed", f"Created: {_names(run, blueprint.disks)}.")


async def create_check(run: Run) -> str:
    """Name the volumes to create."""
    return f"To be created: {_names(run, blueprint_of(run).disks) or 'none'}."


async def remove(run: Run) -> None:
    """Remove the volumes, unless the VM was completed: the task worker may have died just after that."""
    vm = await run.context.store.read(vms.VM, request_of(run).uuid)
    if vm is not None and vm.state is not vms.State.PROVISION:
        raise Leftovers([f"Cannot remove the volumes of VM {vm.name!r}: the VM was completed already."])
    made = run.journal.get("volumes", [])
    try:
        await volumes.remove(run.context[CLUSTER], made, run.context.clock)
    finally:
        await storage.refresh_volumes(run.context, [(each["pool"], each["volume"]) for each in made])


def _names(run: Run, disks: tuple[Disk, ...]) -> str:
    return ", ".join(f"{disk.pool}/{blueprint_of(run).volume(disk)}" for disk in disks)


def _local(run: Run) -> tuple[Disk, ...]:
    """Return the disks to map on this machine."""
    return tuple(disk for disk in blueprint_of(run).disks if disk.filesystem or disk.mountpoint)


async def map_volumes(run: Run) -> Outcome:
    """Map the volumes as devices of this machine."""
    disks = _local(run)
    if not disks:
        return Outcome("skipped", "No disk has a filesystem or a mountpoint.")
    pairs = [(disk.pool, blueprint_of(run).volume(disk)) for disk in disks]
    devices = await volumes.map_all(run.context[MAPPING], pairs, run.intend)
    run.memory["devices"] = dict(zip((disk.disk_id for disk in disks), devices, strict=True))
    run.memory["mapped"] = run.journal["mapped"]
    return Outcome("changed", f"Mapped: {_names(run, disks)}.")


async def map_check(run: Run) -> str:
    """Name the volumes to map."""
    return f"To be mapped: {_names(run, _local(run)) or 'none'}."


async def unmap(run: Run) -> None:
    """Unmap the volumes."""
    await volumes.unmap_all(run.context[MAPPING], run.journal.get("mapped", []), run.context.clock)


async def unmap_all(run: Run) -> Outcome:
    """Unmap the volumes, after everything was written to them."""
    mapped = run.memory.get("mapped", [])
    if not mapped:
        return Outcome("skipped", "No volume is mapped.")
    mapping = run.context[MAPPING]
    await volumes.refuse_broken(mapping, mapped)
    await volumes.unmap_all(mapping, mapped, run.context.clock)
    return Outcome("changed")


async def make_filesystems(run: Run) -> Outcome:
    """Format the disks that have a filesystem and are not copies."""
    made = []
    for disk in _local(run):
        if disk.filesystem and not disk.source_volume:
            await run.progress(f"Making {disk.filesystem} on {disk.disk_id}.")
            device: Path = run.memory["devices"][disk.disk_id]
            await filesystems.make_filesystem(device, disk.filesystem, disk.filesystem_args)
            made.append(f"{disk.filesystem} on {disk.disk_id}")
    return Outcome("changed", f"Made: {', '.join(made)}.") if made else Outcome("skipped", "No disk to format.")


async def format_check(run: Run) -> str:
    """Name the filesystems to make."""
    wanted = [f"{disk.filesystem} on {disk.disk_id}" for disk in blueprint_of(run).disks if disk.filesystem]
    return f"To be made: {', '.join(wanted) or 'none'}."


async def install(run: Run) -> Outcome:
    """Run the script, with the disks mounted where only it sees them."""
    blueprint = blueprint_of(run)
    devices = run.memory.get("devices", {})
    job = installation.Job(
        script=blueprint.script.script,
        vm_name=blueprint.request.name,
        vm_id=blueprint.vm_id,
        disks=tuple(
            installation.Disk(
                pool=disk.pool,
                disk_id=disk.disk_id,
                disk_size_gb=disk.disk_size_gb,
                mountpoint=disk.mountpoint,
                filesystem=disk.filesystem,
                filesystem_args=disk.filesystem_args,
                device=devices.get(disk.disk_id),
            )
            for disk in blueprint.disks
        ),
        networks=blueprint.networks.networks,
        arguments=blueprint.variables.arguments(),
    )
    limit = run.context.settings.of(ProvisionerSettings).script_seconds
    redacted = blueprint.variables.redacted

    async def output(line: str) -> None:
        await run.log(redacted(line))

    try:
        await run.context[INSTALLATION].install(job, output=output, limit=limit)
    except installation.InstallFailed as error:
        raise installation.InstallFailed(redacted(error.sentence)) from None
    return Outcome("changed", f"Script {blueprint.script.name!r} finished.")


async def install_check(run: Run) -> str:
    """Name the script to run and the disks to mount."""
    blueprint = blueprint_of(run)
    mounted = ", ".join(f"{disk.disk_id} at {disk.mountpoint}" for disk in blueprint.disks if disk.mountpoint)
    return f"Script {blueprint.script.name!r} to be run over {mounted or 'no disks'}."
