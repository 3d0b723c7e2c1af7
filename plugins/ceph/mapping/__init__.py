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

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pvcd.errors import Conflict, Failed, PvcdError, Refused
from pvcd.process import run
from pvcd_plugins.ceph.cluster import InUse

__all__ = ["InUse", "IsMapped", "LazyMapping", "Mapped", "Mapping", "MappingFailed", "choose"]

PROGRAMS = {"qemu-storage-daemon": "qemu-system-common", "losetup": "mount", "rbd": "ceph-common"}
"""What the way without the kernel's rbd needs, and Debian's package for it; beside these qemu-block-extra."""
BUS = Path("/sys/bus/rbd")


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


class LazyMapping:
    """A mapping that is chosen when something is asked of it, and refuses where there can be none."""

    def __init__(self, directory: Path, conf: Path, user: str) -> None:
        self._arguments = (directory, conf, user)
        self._mapping: Mapping | None = None

    async def map(self, pool: str, volume: str) -> Path:
        """The device that is the volume from now on."""
        return await (await self._chosen()).map(pool, volume)

    async def unmap(self, pool: str, volume: str) -> None:
        """Take its device away."""
        await (await self._chosen()).unmap(pool, volume)

    async def mapped(self) -> list[Mapped]:
        """What is mapped here by us."""
        return await (await self._chosen()).mapped()

    async def clean(self) -> list[Mapped]:
        """Remove what killed processes left behind."""
        return await (await self._chosen()).clean()

    async def _chosen(self) -> Mapping:
        if self._mapping is None:
            directory, conf, user = self._arguments
            self._mapping = await choose(directory, conf=conf, user=user)
        return self._mapping


async def choose(directory: Path, *, conf: Path, user: str) -> Mapping:
    """The kernel's own rbd where there is one, else a storage daemon with a loop device for each volume."""
    from pvcd_plugins.ceph.mapping.fuse import FuseMapping
    from pvcd_plugins.ceph.mapping.krbd import KernelMapping

    if await _kernel_has_rbd():
        return KernelMapping(directory, conf=conf, user=user)
    absent = {what: package for what, package in PROGRAMS.items() if shutil.which(what) is None}
    if absent:
        raise Refused(
            f"Volumes cannot be mapped here: the kernel has no rbd, and {', '.join(absent)} is not installed "
            f"(apt-get install {' '.join(absent.values())} qemu-block-extra).",
            code="mapping-not-available",
        )
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise Refused(
            "Volumes cannot be mapped here: the kernel has no rbd, and there is no /dev/fuse for us.",
            code="mapping-not-available",
        )
    return FuseMapping(directory, conf=conf, user=user)


async def _kernel_has_rbd() -> bool:
    if not await _is_there(BUS):
        try:
            await run(["modprobe", "rbd"], timeout=10)
        except PvcdError:
            return False
    return await _is_there(BUS)


async def _is_there(path: Path) -> bool:
    return await asyncio.to_thread(path.exists)
