"""Volumes as devices of the kernel's rbd."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from pvcd import Locked, PvcdError
from pvcd_plugins.ceph.mapping import IsMapped, Mapped, MappingFailed
from pvcd_plugins.ceph.mapping.places import Places
from pvcd_plugins.ceph.mapping.rbd import Rbd

MAP_SECONDS, UNMAP_SECONDS = 30.0, 60.0


class KernelMapping:
    """The mapping with `rbd map`. The kernel lists its devices; a file `mapped` marks those of pvcd."""

    def __init__(self, directory: Path, *, conf: Path, user: str) -> None:
        self._places = Places(directory)
        self._rbd = Rbd(conf, user)

    async def map(self, pool: str, volume: str) -> Path:
        """Map a volume and return its device."""
        with self._places.hold(pool, volume) as place:
            device = (await self._devices()).get((pool, volume))
            if device is not None:
                raise IsMapped(pool, volume, device)
            await self._rbd.refuse_if_open(pool, volume, 0.0)
            mark = place / "mapped"
            mark.touch(mode=0o600)
            try:
                # Exclusive: the lock is not handed over to another client that requests it.
                options = ("--exclusive", "--pool", pool, "--image", volume)
                output = await self._rbd("map", *options, timeout=MAP_SECONDS)
            except BaseException:  # also when canceled: the kernel may have mapped the volume all the same
                if (pool, volume) not in await self._devices():
                    mark.unlink()
                raise
            return Path(output.decode().strip())

    async def unmap(self, pool: str, volume: str) -> None:
        """Flush a volume and remove its device; no error if it is not mapped."""
        with self._places.hold(pool, volume) as place:
            mark = place / "mapped"
            device = (await self._devices()).get((pool, volume))
            if device is not None and mark.exists():
                await self._rbd("unmap", str(device), timeout=UNMAP_SECONDS)  # which fails while the device is held
            mark.unlink(missing_ok=True)

    async def mapped(self) -> list[Mapped]:
        """Return the mappings of pvcd on this node, by pool and volume."""
        devices = await self._devices()
        return [Mapped(*key, device=devices.get(key)) for key in self._places.all()]

    async def clean(self) -> list[Mapped]:
        """Forget mappings that the kernel no longer has, the only leftovers of a killed process."""
        removed = []
        for each in await self.mapped():
            if each.device is None:
                with contextlib.suppress(Locked), self._places.hold(each.pool, each.volume) as place:
                    (place / "mapped").unlink(missing_ok=True)
                    removed.append(each)
        return removed

    async def _devices(self) -> dict[tuple[str, str], Path]:
        """Return all rbd devices of this node, except those of snapshots and namespaces."""
        try:
            listed: list[dict[str, Any]] = json.loads(await self._rbd("device", "list", "--format", "json") or "[]")
        except (PvcdError, ValueError) as error:
            raise MappingFailed(f"Cannot list the mapped volumes of this node: {error}") from error
        return {
            (each["pool"], each["name"]): Path(each["device"])
            for each in listed
            if each.get("snap") in ("-", "", None) and not each.get("namespace")
        }
