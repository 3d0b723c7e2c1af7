"""The block devices of this node: which there are, and why one cannot become an OSD.

Nothing is believed of a path before the kernel has been asked: `lsblk` for what it is and what lies on it, the lists of
mounts and swaps, its holders, an exclusive open (which the kernel refuses to whoever comes second) and `blkid` for what
is written on it.
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

SMALLEST = 1024**3
"""Bytes of the smallest device that an OSD makes sense on."""

_LIMIT = 30.0
_KINDS = ("disk", "part", "loop", "lvm", "mpath", "crypt")
_COLUMNS = "PATH,KNAME,PKNAME,TYPE,SIZE,RO,MAJ:MIN"
_NOTHING_FOUND = 2  # the exit status of blkid for a device without any signature

Row = Mapping[str, Any]


async def look() -> list[Device]:
    """All of this node, by path."""
    rows = await _rows()
    paths = sorted({row["path"] for row in rows if row["type"] in _KINDS})
    return [Device(path, _row(path, rows)["size"], await _refusal(path, rows)) for path in paths]


async def check(path: str) -> str:
    """The true path of an unused block device; raises `DeviceRefused` for anything else."""
    true = await asyncio.to_thread(_true_path, path)
    rows = await _rows()
    refusal = await _refusal(true, rows)
    if refusal is not None:
        raise DeviceRefused(refusal)
    return true


def _true_path(path: str) -> str:
    """The path after all links; raises `DeviceRefused` unless it is that of a block device under /dev."""
    true = os.path.realpath(path) if path.startswith("/dev/") and "\0" not in path else ""
    try:
        if true.startswith("/dev/") and stat.S_ISBLK(os.stat(true).st_mode):
            return true
    except OSError:
        pass
    raise DeviceRefused(f"{path[:256]!r} is no block device of this node: name one under /dev, such as '/dev/sdb'.")


async def _rows() -> Sequence[Row]:
    """All block devices, without any hierarchy."""
    argv = ("lsblk", "--json", "--bytes", "--paths", "--list", "--output", _COLUMNS)
    rows: list[Row] = json.loads((await programs.run(argv, timeout=_LIMIT)).stdout)["blockdevices"]
    return rows


def _row(path: str, rows: Sequence[Row]) -> Row:
    for row in rows:
        if path in (row["path"], row["kname"]):
            return row
    raise DeviceRefused(f"{path!r} is no block device that the kernel tells of.")


async def _refusal(path: str, rows: Sequence[Row]) -> str | None:
    """Why a device cannot become an OSD: a sentence, or None for one that can."""
    row = _row(path, rows)
    return _unfit(path, row, rows) or await asyncio.to_thread(_used, path, row) or await _written(path)


def _unfit(path: str, row: Row, rows: Sequence[Row]) -> str | None:
    if row["type"] not in _KINDS:
        return f"{path!r} is a {row['type']}, which cannot hold an OSD."
    if row["ro"]:
        return f"{path!r} cannot be written to."
    if row["size"] < SMALLEST:
        return f"{path!r} is too small for an OSD: it has {row['size']} bytes."
    parts = sorted({each["path"] for each in rows if each["pkname"] == row["kname"]})
    return f"{path!r} is in use: {parts[0]!r} is a part of it." if parts else None


def _used(path: str, row: Row) -> str | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == row["maj:min"].strip():
            return f"{path!r} is in use: it is mounted on {fields[4]}."
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        if os.path.realpath(line.split()[0]) == path:
            return f"{path!r} is in use: it is swap space."
    if holders := sorted(os.listdir(Path("/sys/class/block", os.path.basename(row["kname"]), "holders"))):
        return f"{path!r} is in use: {holders[0]} holds it."
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        how = "is in use: the kernel holds it" if error.errno == errno.EBUSY else f"cannot be opened: {error.strerror}"
        return f"{path!r} {how}."
    return None


async def _written(path: str) -> str | None:
    """What is written on a device that would be lost: a sentence, or None."""
    try:
        result = await programs.run(("blkid", "--probe", "--output", "export", path), timeout=_LIMIT, check=False)
    except programs.ProgramFailed as error:
        return error.sentence
    if result.returncode == _NOTHING_FOUND and not result.stderr.strip():
        return None
    found = dict(line.split("=", 1) for line in result.stdout.decode(errors="replace").splitlines() if "=" in line)
    what = found.get("TYPE") or found.get("PTTYPE")
    if what == "ceph_bluestore":
        return f"{path!r} belongs to an OSD, or did so: wipe it first if it is needed no more."
    if what:
        return f"{path!r} is not empty, it holds {what}: wipe it first if it is needed no more."
    return f"{path!r} cannot be told to be empty: wipe it first if it is needed no more."
