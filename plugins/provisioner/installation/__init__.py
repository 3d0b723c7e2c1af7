"""The door to running scripts: `install()` of a user's script, over the disks of a VM that is being built.

    installation = ChildInstallation()
    await installation.install(job, output=run.log, limit=3600)

The script runs in namespaces of its own. Everything that it mounts, starts or leaves in /tmp is gone when `install`
ends, however it ends, and no other process sees the filesystems of the job. It is root among the files of the VM only:
see view.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pvcd import Failed

__all__ = ["MOUNTED", "TEMPORARY_DIRECTORY", "Disk", "InstallFailed", "Installation", "Job", "Output"]

Output = Callable[[str], Awaitable[None]]
"""Called with each line that a script writes."""

TEMPORARY_DIRECTORY = "/tmp/target"  # noqa: S108 - in a /tmp that only the script sees
"""Where the disks are mounted for the script."""
MOUNTED = {
    **dict.fromkeys(("ext2", "ext3", "ext4", "vfat"), "errors=remount-ro"),
    **{"xfs": "nouuid", "btrfs": ""},
}
"""Filesystems that can be mounted, and their mount options: a clone of XFS has the UUID of its source, and a damaged
ext4 is not to panic the kernel, whatever it says itself."""


class InstallFailed(Failed):
    """A script failed; the sentence says how it ended and in which line."""

    code = "install-failed"


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of the VM, as the script sees it."""

    pool: str
    disk_id: str
    disk_size_gb: int | None
    """None for a clone."""
    mountpoint: str | None = None
    filesystem: str | None = None
    filesystem_args: tuple[str, ...] = ()
    device: Path | None = None
    """Its device on this machine; None if it is not mapped."""


@dataclass(frozen=True, slots=True)
class Job:
    """A script and what it is run with."""

    script: str
    vm_name: str
    vm_id: int
    disks: tuple[Disk, ...] = ()
    networks: tuple[int, ...] = ()
    """VNIs, in the order of the VM's interfaces."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """For the script, in addition to what every script gets."""


class Installation(Protocol):
    """Runs scripts."""

    async def install(self, job: Job, *, output: Output, limit: float) -> None:
        """Mount the disks that have a mountpoint, run `install()`, and write everything back.

        Raises `Invalid` before anything runs, `InstallFailed`, and `TimedOut` after `limit` seconds. In each case, and
        when the caller is cancelled, nothing of the script is left when this returns.
        """
