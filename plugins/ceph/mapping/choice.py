"""Which way volumes are mapped on this node: by the kernel's own rbd, or by a storage daemon and loop devices."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from pvcd import PvcdError, Refused, programs
from pvcd_plugins.ceph.mapping import Mapped, Mapping
from pvcd_plugins.ceph.mapping.fuse import FuseMapping
from pvcd_plugins.ceph.mapping.krbd import KernelMapping

PROGRAMS = {"qemu-storage-daemon": "qemu-system-common", "losetup": "mount", "rbd": "ceph-common"}
"""What the way without the kernel's rbd needs, and Debian's package for it; beside these qemu-block-extra."""
BUS = Path("/sys/bus/rbd")


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
            await programs.run(["modprobe", "rbd"], timeout=10)
        except PvcdError:
            return False
    return await _is_there(BUS)


async def _is_there(path: Path) -> bool:
    return await asyncio.to_thread(path.exists)
