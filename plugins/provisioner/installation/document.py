"""The JSON document of a job, checked before anything runs."""

from __future__ import annotations

from typing import Any

from pvcd import Invalid, wrong_value
from pvcd_plugins.provisioner.grammar import GIVEN, read_mountpoint
from pvcd_plugins.provisioner.installation import MOUNTED, TEMPORARY_DIRECTORY, Disk, Job


def document(job: Job) -> dict[str, Any]:
    """Return the job as `inside.py` reads it, with the arguments of `install()`. Raises `Invalid`."""
    taken = [name for name in job.arguments if name in GIVEN]
    if taken:
        raise Invalid(f"{taken[0]} cannot be an argument: it is given to every script.")
    disks = [_disk(disk) for disk in job.disks]
    paths = [disk["mountpoint"] for disk in disks if disk["mountpoint"]]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise Invalid(f"mountpoint must be different for each disk; got {twice!r} twice.")
    names = ("pool", "disk_id", "disk_size_gb", "mountpoint", "filesystem", "filesystem_args", "device")
    given: dict[str, Any] = {
        "vm_name": job.vm_name,
        "vm_id": job.vm_id,
        "temporary_directory": TEMPORARY_DIRECTORY,
        "disks": [{name: disk[name] for name in names} for disk in disks],
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
            raise Invalid(
                wrong_value(f"mountpoint of {disk.disk_id}", repr(disk.mountpoint[:80]), str(error))
            ) from None
        if disk.filesystem not in MOUNTED:
            rule = f"must be one of {', '.join(MOUNTED)}"
            raise Invalid(wrong_value(f"filesystem of {disk.disk_id}", disk.filesystem or "none", rule))
        if disk.device is None:
            raise Invalid(f"Cannot mount disk {disk.disk_id!r}: its volume is not mapped.")
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
