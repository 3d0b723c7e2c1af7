"""A job as a JSON document, checked before anything runs."""

from __future__ import annotations

from typing import Any

from pvcd import Invalid
from pvcd_plugins.provisioner.grammar import GIVEN, read_mountpoint
from pvcd_plugins.provisioner.installation import MOUNTED, TEMPORARY_DIRECTORY, Disk, Job


def document(job: Job) -> dict[str, Any]:
    """The job as `inside.py` reads it, with the arguments of `install()`. Raises `Invalid` for one that cannot work."""
    taken = [name for name in job.arguments if name in GIVEN]
    if taken:
        raise Invalid(f"The argument {taken[0]} is given to every script, and cannot be another one's name.")
    disks = [_disk(disk) for disk in job.disks]
    paths = [disk["mountpoint"] for disk in disks if disk["mountpoint"]]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise Invalid(f"Two disks have the mountpoint {twice}.")
    told = ("pool", "disk_id", "disk_size_gb", "mountpoint", "filesystem", "filesystem_args", "device")
    given: dict[str, Any] = {
        "vm_name": job.vm_name,
        "vm_id": job.vm_id,
        "temporary_directory": TEMPORARY_DIRECTORY,
        "disks": [{name: disk[name] for name in told} for disk in disks],
        "networks": [{"vni": vni} for vni in job.networks],
    }
    return {
        "script": job.script,
        "temporary_directory": TEMPORARY_DIRECTORY,
        "disks": disks,
        "kwargs": given | dict(job.arguments),
    }


def _disk(disk: Disk) -> dict[str, Any]:
    mountpoint = None
    if disk.mountpoint is not None and disk.filesystem != "swap":
        try:
            mountpoint = read_mountpoint(disk.mountpoint)
        except ValueError as error:
            raise Invalid(f"The mountpoint {disk.mountpoint[:80]!r} of {disk.disk_id} is not valid: {error}.") from None
        if disk.filesystem not in MOUNTED:
            raise Invalid(
                f"A disk with {disk.filesystem or 'no file system'} cannot be mounted, as {disk.disk_id} should be."
            )
        if disk.device is None:
            raise Invalid(f"The disk {disk.disk_id} is not mapped, and so cannot be mounted.")
    return {
        "pool": disk.pool,
        "disk_id": disk.disk_id,
        "disk_size_gb": disk.disk_size_gb,
        "mountpoint": mountpoint,
        "filesystem": disk.filesystem,
        "filesystem_args": " ".join(disk.filesystem_args),
        "device": None if disk.device is None else str(disk.device),
        "mount_data": MOUNTED.get(disk.filesystem or "", ""),
    }
