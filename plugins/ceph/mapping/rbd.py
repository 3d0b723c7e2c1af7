"""The program `rbd`, as mappings use it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from pvcd import NotFound, programs
from pvcd_plugins.ceph.cluster import InUse

LIMIT_SECONDS = 15.0
NO_SUCH_FILE = 2
"""Its exit status when there is no such pool or volume."""


class Rbd:
    """The program `rbd`, run as one user of one cluster."""

    def __init__(self, conf: Path, user: str) -> None:
        self._options = ("--conf", str(conf), "--id", user)

    async def __call__(self, *arguments: str, timeout: float = LIMIT_SECONDS) -> bytes:
        """Run it and return its stdout."""
        return (await programs.run(["rbd", *self._options, *arguments], timeout=timeout)).stdout

    async def refuse_if_open(self, pool: str, volume: str, patience: float) -> None:
        """Raise `NotFound`, or `InUse` for a volume that another client still has open after `patience` seconds."""
        end = time.monotonic() + patience
        while watchers := await self._watchers(pool, volume):
            if time.monotonic() >= end:
                addresses = ", ".join(sorted(str(watcher["address"]) for watcher in watchers))
                reason = f"{addresses} has it open. A killed client is listed for up to 30 s more"
                raise InUse("volume", f"map volume '{pool}/{volume}'", reason)
            await asyncio.sleep(0.5)

    async def _watchers(self, pool: str, volume: str) -> list[dict[str, Any]]:
        argv = ["rbd", *self._options, "status", "--format", "json", "--pool", pool, "--image", volume]
        result = await programs.run(argv, timeout=LIMIT_SECONDS, check=False)
        if result.returncode == NO_SUCH_FILE:
            raise NotFound("volume", f"{pool}/{volume}")
        if result.returncode:
            line = "".join(result.stderr.decode(errors="replace").strip().splitlines()[-1:])
            status = f"rbd status ended with exit status {result.returncode}: {line}"
            raise programs.ProgramFailed(f"Cannot map volume '{pool}/{volume}': {status}")
        found: list[dict[str, Any]] = json.loads(result.stdout)["watchers"]
        return found
