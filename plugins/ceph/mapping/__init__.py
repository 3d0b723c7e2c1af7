"""The door to volumes as local block devices: map a volume, use it as a disk, unmap it.

    mapping = await choose(directory, conf=Path("/etc/ceph/ceph.conf"), user="pvcd")
    device = await mapping.map("vms", "web1_sda")

A mapping outlives this process and is found again below `directory`, which belongs to one node and must not survive
a reboot, such as a directory in /run. The key of `client.<user>` comes from the keyring that `conf` names.

Before a task maps a volume, it writes `mapped` into its journal: a list of facts with `pool` and `volume`. A task
worker that starts unmaps orphaned mappings, which no unfinished task claims.

Ceph lists a killed client as a user of its volume for up to 30 s more. Until then the volume can be neither removed nor
mapped on another node; mapping it again on the same node waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pvcd import Conflict, Failed
from pvcd_plugins.ceph.cluster import InUse

__all__ = ["InUse", "IsMapped", "Mapped", "Mapping", "MappingFailed"]


class MappingFailed(Failed):
    """A volume could not be mapped or unmapped; the sentence names the obstacle or the leftovers."""

    code = "mapping-failed"


class IsMapped(Conflict):
    """The volume is already mapped on this node."""

    code = "volume-mapped"

    def __init__(self, pool: str, volume: str, device: Path) -> None:
        super().__init__(f"Cannot map volume '{pool}/{volume}': it is already mapped on this node as {device}.")


@dataclass(frozen=True, slots=True)
class Mapped:
    """A volume that is mapped on this node."""

    pool: str
    volume: str
    device: Path | None
    """None for a mapping whose daemon was killed or whose creation was interrupted: `unmap` and `clean` remove it."""


class Mapping(Protocol):
    """Volumes as block devices of this node.

    Every call ends within a deadline. While one works on a volume, others on this node raise `Locked`.
    """

    async def map(self, pool: str, volume: str) -> Path:
        """Map a volume and return its device, which keeps its size until the volume is mapped again.

        Raises `IsMapped` when it is mapped here, `InUse` when another client has it open, and `NotFound`. Leftovers of
        a killed process are removed first.
        """

    async def unmap(self, pool: str, volume: str) -> None:
        """Flush a volume and remove its device; no error if it is not mapped.

        Raises `InUse` while the device is mounted or held in another way.
        """

    async def mapped(self) -> list[Mapped]:
        """Return the mappings of pvcd on this node, by pool and volume."""

    async def clean(self) -> list[Mapped]:
        """Remove what killed processes left behind, unmount its file systems, and return what was removed.

        Complete mappings and locked ones stay. Raises `MappingFailed` with everything else that stays.
        """
