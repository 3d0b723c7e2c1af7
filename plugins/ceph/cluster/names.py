"""The names of things, as arguments of Ceph's programs, and the errors of names that do not exist."""

from __future__ import annotations

import errno
import hashlib

from pvcd import NotFound, PvcdError
from pvcd_plugins.ceph.cluster import LEFTOVER, check_name


def osd_id(osd: int) -> str:
    """Return the id of an OSD as an argument that does not look like an option."""
    if osd < 0:
        raise NotFound("OSD", osd)
    return str(int(osd))


def image_name(pool: str, volume: str) -> str:
    """Return the full name of a volume."""
    return f"{check_name('pool', pool)}/{check_name('volume', volume)}"


def snapshot_name(pool: str, volume: str, snapshot: str) -> str:
    """Return the full name of a snapshot."""
    return f"{image_name(pool, volume)}@{check_name('snapshot', snapshot)}"


def clone_snapshot(pool: str, source: str, volume: str) -> str:
    """Return the snapshot for copying a volume to another one of its pool."""
    return f"{image_name(pool, source)}@{LEFTOVER}{hashlib.sha256(volume.encode()).hexdigest()[:16]}"


def no_volume(pool: str, volume: str) -> dict[int, PvcdError]:
    """Return what a program's exit status says of a volume that does not exist."""
    return {errno.ENOENT: NotFound("volume", f"{pool}/{volume}")}


def no_snapshot(name: str) -> dict[int, PvcdError]:
    """Return what a program's exit status says of a snapshot that does not exist."""
    return {errno.ENOENT: NotFound("snapshot", name)}
