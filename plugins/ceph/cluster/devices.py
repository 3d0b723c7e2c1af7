"""The block devices of this node, and why one cannot become an OSD.

All facts come from the kernel: `lsblk` for the type and the children of a device, the lists of mounts and swaps, its
holders, an exclusive open, which fails while anything else holds the device, and `blkid` for signatures on it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pvcd import programs
from pvcd_plugins.ceph.cluster import Device, DeviceRefused

MIN_BYTES = 1024**3
"""Size of the smallest device that is worth an OSD, in bytes."""

_LIMIT = 30.0
_KINDS = ("disk", "part", "loop", "lvm", "mpath", "crypt")
_COLUMNS = "PATH,KNAME,PKNAME,TYPE,SIZE,RO,MAJ:MIN"
_NOTHING_FOUND = 2  # exit status of blkid for a device without signatures
_WIPE = "Wipe it first if its data is no longer needed"

Row = Mapping[str, Any]


async def look() -> list[Device]:
    """Return all block devices of this node, by path."""
    rows = await _rows()
    paths = sorted({row["path"] for row in rows if row["type"] in _KINDS})
    return [Device(path, _row(path, rows)["size"], await _refusal(path, rows)) for path in paths]


async def check(path: str) -> str:
    """Return the real path of an unused block device; raises `DeviceRefused` for anything else."""
    real = await asyncio.to_thread(_real_path, path)
    refusal = await _refusal(real, await _rows())
    if refusal is not None:
        raise DeviceRefused(path, refusal)
    return real


def _real_path(path: str) -> str:
    """Resolve all links; raises `DeviceRefused` unless the result is a block device under /dev."""
    real = os.path.realpath(path) if path.startswith("/dev/") and "\0" not in path else ""
    try:
        if real.startswith("/dev/") and stat.S_ISBLK(os.stat(real).st_mode):
            return real
    except OSError:
        pass
    raise DeviceRefused(path, "it is not a block device of this node. Use one under /dev, such as '/dev/sdb'")


async def _rows() -> Sequence[Row]:
    """Return what `lsblk` lists, without hierarchy."""
    argv = ("lsblk", "--json", "--bytes", "--paths", "--list", "--output", _COLUMNS)
    rows: list[Row] = json.loads((await programs.run(argv, timeout=_LIMIT)).stdout)["blockdevices"]
    return rows


def _row(path: str, rows: Sequence[Row]) -> Row:
    for row in rows:
        if path in (row["path"], row["kname"]):
            return row
    raise DeviceRefused(path, "lsblk does not list it")


async def _refusal(path: str, rows: Sequence[Row]) -> str | None:
    """Return why a device cannot become an OSD, or None if it can."""
    row = _row(path, rows)
    return _unfit(row, rows) or await asyncio.to_thread(_used, path, row) or await _content(path)


def _unfit(row: Row, rows: Sequence[Row]) -> str | None:
    if row["type"] not in _KINDS:
        return f"an OSD cannot use a device of type {row['type']!r}"
    if row["ro"]:
        return "it is read-only"
    if row["size"] < MIN_BYTES:
        return f"it is too small for an OSD ({row['size']} bytes)"
    parts = sorted({each["path"] for each in rows if each["pkname"] == row["kname"]})
    return f"it is in use by {parts[0]!r}" if parts else None


def _used(path: str, row: Row) -> str | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == row["maj:min"].strip():
            return f"it is mounted on {fields[4]!r}"
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        if os.path.realpath(line.split()[0]) == path:
            return "it is in use as swap space"
    if holders := sorted(os.listdir(Path("/sys/class/block", os.path.basename(row["kname"]), "holders"))):
        return f"it is in use by {holders[0]!r}"
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        busy = error.errno == errno.EBUSY
        return "it is in use by the kernel" if busy else f"it cannot be opened ({error.strerror})"
    return None


async def _content(path: str) -> str | None:
    """Return why a device may hold data, or None if it is empty."""
    try:
        result = await programs.run(("blkid", "--probe", "--output", "export", path), timeout=_LIMIT, check=False)
    except programs.ProgramFailed as error:
        return error.sentence.rstrip(".")
    if result.returncode == _NOTHING_FOUND and not result.stderr.strip():
        return None
    found = dict(line.split("=", 1) for line in result.stdout.decode(errors="replace").splitlines() if "=" in line)
    what = found.get("TYPE") or found.get("PTTYPE")
    if what == "ceph_bluestore":
        return f"it belongs or belonged to an OSD. {_WIPE}"
    return f"it holds {what}. {_WIPE}" if what else f"it may not be empty. {_WIPE}"
