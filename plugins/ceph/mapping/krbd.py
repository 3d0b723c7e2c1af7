"""Volumes as devices of the kernel's own rbd, where it has one."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from pvcd import Locked, PvcdError
from pvcd_plugins.ceph.mapping import IsMapped, Mapped, MappingFailed
from pvcd_plugins.ceph.mapping.places import Places
from pvcd_plugins.ceph.mapping.rbd import Rbd

MAP_LIMIT, UNMAP_LIMIT = 30.0, 60.0


class KernelMapping:
    """`rbd map`. What is mapped is known by the kernel; a file `mapped` per volume says that it is ours."""

    def __init__(self, directory: Path, *, conf: Path, user: str) -> None:
        self._places = Places(directory)
        self._rbd = Rbd(conf, user)

    async def map(self, pool: str, volume: str) -> Path:
        """The device that is the volume from now on."""
        with self._places.hold(pool, volume) as place:
            device = (await self._devices()).get((pool, volume))
            if device is not None:
                raise IsMapped(pool, volume, device)
            await self._rbd.refuse_if_open(pool, volume, 0.0)
            mark = place / "mapped"
            mark.touch(mode=0o600)
            try:
                # Exclusive: the lock is not handed over to whoever asks for it while it is mapped.
                options = ("--exclusive", "--pool", pool, "--image", volume)
                output = await self._rbd("map", *options, timeout=MAP_LIMIT)
            except BaseException:  # also when we are cancelled, and the kernel may have done it all the same
                if (pool, volume) not in await self._devices():
                    mark.unlink()
                raise
            return Path(output.decode().strip())

    async def unmap(self, pool: str, volume: str) -> None:
        """Let all that was written reach the volume, and take its device away; fine when it is not mapped."""
        with self._places.hold(pool, volume) as place:
            mark = place / "mapped"
            device = (await self._devices()).get((pool, volume))
            if device is not None and mark.exists():
                await self._rbd("unmap", str(device), timeout=UNMAP_LIMIT)  # which says itself when it is held
            mark.unlink(missing_ok=True)

    async def mapped(self) -> list[Mapped]:
        """What is mapped here by us, by pool and volume."""
        devices = await self._devices()
        return [Mapped(*key, device=devices.get(key)) for key in self._places.all()]

    async def clean(self) -> list[Mapped]:
        """Forget what the kernel does not have any more; nothing else of a killed process is left here."""
        removed = []
        for each in await self.mapped():
            if each.device is None:
                with contextlib.suppress(Locked), self._places.hold(each.pool, each.volume) as place:
                    (place / "mapped").unlink(missing_ok=True)
                    removed.append(each)
        return removed

    async def _devices(self) -> dict[tuple[str, str], Path]:
        """The devices of this node's kernel, whoever mapped them; not those of snapshots and namespaces."""
        try:
            listed: list[dict[str, Any]] = json.loads(await self._rbd("device", "list", "--format", "json") or "[]")
        except (PvcdError, ValueError) as error:
            raise MappingFailed(f"It cannot be seen what is mapped here: {error}") from error
        return {
            (each["pool"], each["name"]): Path(each["device"])
            for each in listed
            if each.get("snap") in ("-", "", None) and not each.get("namespace")
        }
