"""The door to volumes as local block devices: map one, use it as a disk, unmap it.

    mapping = await choose(directory, conf=Path("/etc/ceph/ceph.conf"), user="pvcd")
    device = await mapping.map("vms", "web1_sda")

What is mapped stays mapped when this process ends, and is found again below `directory`, which is of one node and not
kept over its restart: somewhere in /run. Both ways find the key of `client.<user>` in the keyring that `conf` names.

Who maps a volume for a task writes that into the journal before, as `mapped`, a list of facts with `pool` and `volume`:
a worker that starts unmaps what no task claims in this way that is not over.

A client that was killed, by itself or with its node, counts as a user of its volume for half a minute more. Until then
the volume can be neither removed nor mapped elsewhere; mapping it anew on the same node waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pvcd import Conflict, Failed
from pvcd_plugins.ceph.cluster import InUse

__all__ = ["InUse", "IsMapped", "Mapped", "Mapping", "MappingFailed"]


class MappingFailed(Failed):
    """A volume could not be mapped or unmapped; the sentence says what stands in the way or is left."""

    code = "mapping-failed"


class IsMapped(Conflict):
    """It is mapped on this node already."""

    code = "volume-mapped"

    def __init__(self, pool: str, volume: str, device: Path) -> None:
        super().__init__(f"The volume {pool}/{volume} is mapped already, as {device}.")


@dataclass(frozen=True, slots=True)
class Mapped:
    """A volume that is mapped here."""

    pool: str
    volume: str
    device: Path | None
    """None when what held it was killed, or never came to an end: `unmap` and `clean` remove what is left of it."""


class Mapping(Protocol):
    """Volumes as block devices of this node.

    Every verb ends within a deadline. While one is at work on a volume, another one of this node gets `Locked`.
    """

    async def map(self, pool: str, volume: str) -> Path:
        """The device that is the volume from now on.

        Raises `IsMapped` when it is mapped here, `InUse` when anybody else has it open, and `NotFound`. What a killed
        process left of it is removed before. Its size counts as it is now: after a resize it is mapped anew.
        """

    async def unmap(self, pool: str, volume: str) -> None:
        """Let all that was written reach the volume, and take its device away; fine when it is not mapped.

        Raises `InUse` while the device is mounted or otherwise held, whoever does it.
        """

    async def mapped(self) -> list[Mapped]:
        """What is mapped here by us, by pool and volume."""

    async def clean(self) -> list[Mapped]:
        """Remove what killed processes left behind, with the file systems that are mounted of it; what was removed.

        What is whole stays, as does what somebody is at work on. Raises `MappingFailed` with all that stays besides.
        """
