"""Choose how this node maps volumes: with the kernel's rbd, or with a storage daemon and loop devices."""

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
"""The programs that are needed without the kernel's rbd -> their Debian packages; qemu-block-extra is needed too."""
BUS = Path("/sys/bus/rbd")


class LazyMapping:
    """A mapping that is chosen on first use; it raises `Refused` where volumes cannot be mapped."""

    def __init__(self, directory: Path, conf: Path, user: str) -> None:
        self._arguments = (directory, conf, user)
        self._mapping: Mapping | None = None

    async def map(self, pool: str, volume: str) -> Path:
        """Map a volume and return its device."""
        return await (await self._chosen()).map(pool, volume)

    async def unmap(self, pool: str, volume: str) -> None:
        """Flush a volume and remove its device."""
        await (await self._chosen()).unmap(pool, volume)

    async def mapped(self) -> list[Mapped]:
        """Return the mappings of pvcd on this node."""
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
    """Return the mapping of the kernel's rbd if there is one, else that of a storage daemon."""
    if await _kernel_has_rbd():
        return KernelMapping(directory, conf=conf, user=user)
    absent = {program: package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if absent:
        raise Refused(
            f"Cannot map volumes on this node: the kernel has no rbd, and {', '.join(absent)} is not installed. "
            f"Run apt-get install {' '.join(absent.values())} qemu-block-extra.",
            code="mapping-not-available",
        )
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise Refused(
            "Cannot map volumes on this node: the kernel has no rbd, and /dev/fuse is missing or not accessible.",
            code="mapping-not-available",
        )
    return FuseMapping(directory, conf=conf, user=user)


async def _kernel_has_rbd() -> bool:
    if not await _exists(BUS):
        try:
            await programs.run(["modprobe", "rbd"], timeout=10)
        except PvcdError:
            return False
    return await _exists(BUS)


async def _exists(path: Path) -> bool:
    return await asyncio.to_thread(path.exists)
