"""The door to installing: a user's `install()` is run over the disks of a VM that is being made.

    installation = ChildInstallation()
    await installation.install(job, output=run.log, limit=3600)

Whatever the script mounts, starts or leaves in /tmp is gone when `install` comes to an end, however it does: the script
runs with namespaces of its own, and no file system of the job is ever mounted where others see it. It is no prison: it
runs as root, with the network and the disks of this node, as installing a system needs it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pvcd import Failed

__all__ = [
    "MOUNTED",
    "TEMPORARY_DIRECTORY",
    "Disk",
    "InstallFailed",
    "Installation",
    "Job",
    "Output",
]

Output = Callable[[str], Awaitable[None]]
"""Called with each line that a script writes."""

TEMPORARY_DIRECTORY = "/tmp/target"  # noqa: S108 - of a /tmp that only the script sees
"""Where a script finds its disks mounted."""
MOUNTED = {"ext2": "", "ext3": "", "ext4": "", "xfs": "nouuid", "btrfs": "", "vfat": ""}
"""The file systems that can be mounted, and what the kernel is told beside: a clone of XFS has its source's UUID."""


class InstallFailed(Failed):
    """A script did not do its part; the sentence says how it ended, and in which of its lines."""

    code = "install-failed"


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of the VM, as a script is told of it."""

    pool: str
    disk_id: str
    disk_size_gb: int | None
    """None for a clone."""
    mountpoint: str | None = None
    filesystem: str | None = None
    filesystem_args: tuple[str, ...] = ()
    device: Path | None = None
    """What it is here; None for one that is not mapped."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a script is run with."""

    script: str
    vm_name: str
    vm_id: int
    disks: tuple[Disk, ...] = ()
    networks: tuple[int, ...] = ()
    """VNIs, in the order of the VM's interfaces."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """What the script gets beside what every script gets."""


class Installation(Protocol):
    """Where scripts run."""

    async def install(self, job: Job, *, output: Output, limit: float) -> None:
        """Mount the disks that have a mountpoint, run `install()`, and write all of it back.

        Raises `Invalid` before anything runs, `InstallFailed`, and `TimedOut` after `limit` seconds. In each case, and
        when the caller is cancelled, nothing of the script is left when this ends.
        """
