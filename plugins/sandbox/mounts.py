"""Loop devices on a sandbox's files and mounts in its directory, which outlive its processes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from pvcd import PvcdError, programs

_TIMEOUT_SECONDS = 20.0


async def release(directory: Path) -> None:
    """Detach and unmount all of them, as far as possible."""
    for device in await _loop_devices(directory):
        await _try("losetup", "--detach", device)
    for place in sorted(await asyncio.to_thread(_mounts, directory), key=len, reverse=True):
        await _try("umount", "--lazy", place)


async def _loop_devices(directory: Path) -> list[str]:
    try:
        listed = (await programs.run(("losetup", "--json", "--list"), timeout=_TIMEOUT_SECONDS)).stdout
    except PvcdError:
        return []
    devices = json.loads(listed)["loopdevices"] if listed else []
    return [device["name"] for device in devices if (device["back-file"] or "").startswith(f"{directory}/")]


def _mounts(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    places = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return [place for place in places if place.startswith(f"{directory}/")]


async def _try(*argv: str) -> None:
    await programs.run(argv, timeout=_TIMEOUT_SECONDS, check=False)
