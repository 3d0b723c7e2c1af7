"""The rbd program: what a mapping asks Ceph with."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from pvcd import NotFound, programs
from pvcd_plugins.ceph.cluster import InUse

DEAD_CLIENT = 35.0
"""Seconds after which Ceph does not count a killed client any more (it says 30)."""
LIMIT = 15.0
NO_SUCH_FILE = 2
"""How it ends when there is no such pool or volume."""


class Rbd:
    """The rbd program, as one user of one cluster."""

    def __init__(self, conf: Path, user: str) -> None:
        self._options = ("--conf", str(conf), "--id", user)

    async def __call__(self, *arguments: str, timeout: float = LIMIT) -> bytes:
        """What it writes to stdout."""
        return (await programs.run(["rbd", *self._options, *arguments], timeout=timeout)).stdout

    async def refuse_if_open(self, pool: str, volume: str, patience: float) -> None:
        """Raise `NotFound`, or `InUse` for a volume that somebody still has open when our patience is over."""
        end = time.monotonic() + patience
        while watchers := await self._watchers(pool, volume):
            if time.monotonic() >= end:
                addresses = ", ".join(sorted(str(watcher["address"]) for watcher in watchers))
                raise InUse(
                    "volume",
                    f"{pool}/{volume}",
                    f"{addresses} has it open (one that was killed counts for half a minute more)",
                )
            await asyncio.sleep(0.5)

    async def _watchers(self, pool: str, volume: str) -> list[dict[str, Any]]:
        argv = ["rbd", *self._options, "status", "--format", "json", "--pool", pool, "--image", volume]
        result = await programs.run(argv, timeout=LIMIT, check=False)
        if result.returncode == NO_SUCH_FILE:
            raise NotFound("volume", f"{pool}/{volume}")
        if result.returncode:
            line = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise programs.ProgramFailed(f"rbd status failed with exit status {result.returncode}: {''.join(line)}")
        found: list[dict[str, Any]] = json.loads(result.stdout)["watchers"]
        return found
