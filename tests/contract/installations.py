"""The fake and the real place where scripts run in tests, and a check for leftovers of the real one."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pvcd_plugins.provisioner.installation import Disk, Job
from pvcd_plugins.provisioner.installation.child import INSIDE

MKFS = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f"), "swap": ("mkswap", "-q")}
SIZES = {"ext4": 32, "xfs": 320, "swap": 8}
"""MiB, of which XFS needs most."""


def need_root() -> None:
    """Skip the test if nothing can be mounted, but fail it in CI."""
    if os.geteuid() != 0 or not shutil.which("losetup") or not shutil.which("mkfs.ext4"):
        reason = "installing needs root, losetup and mkfs.ext4"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def job(script: str, *disks: Disk, **arguments: str) -> Job:
    return Job(script, "web1", 1, disks, (200, 300), arguments)


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait for something that other processes do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


class Disks:
    """Loop devices of sparse files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.devices: list[Path] = []

    def make(self, disk_id: str, mountpoint: str | None, filesystem: str | None = "ext4") -> Disk:
        """A disk that is formatted."""
        size = SIZES[filesystem or "swap"]
        image = self._folder / f"{disk_id}.img"
        with image.open("wb") as file:
            file.truncate(size << 20)
        found = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True)
        device = Path(found.stdout.strip())
        self.devices.append(device)
        if filesystem is not None:
            subprocess.run([*MKFS[filesystem], str(device)], check=True, capture_output=True)
        return Disk("vms", disk_id, 1, mountpoint, filesystem, (), device)

    @contextmanager
    def mounted(self, disk: Disk) -> Iterator[Path]:
        """The files of a disk, for the test."""
        place = self._folder / "mounted"
        place.mkdir(exist_ok=True)
        subprocess.run(["mount", str(disk.device), str(place)], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", str(place)], check=True)

    def held(self) -> list[str]:
        """Return the devices in use in any namespace."""
        return [str(device) for device in self.devices if not _can_be_had(device)]

    def close(self) -> None:
        for device in self.devices:
            subprocess.run(["losetup", "--detach", str(device)], check=True)


def _can_be_had(device: Path) -> bool:
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return False
    return True


class Traces:
    """Return what scripts of this process may leave behind: processes, loop devices, mounts, and files in /tmp."""

    def __init__(self) -> None:
        self._before = self._now()

    def left(self) -> list[str]:
        return sorted(self._now() - self._before)

    def _now(self) -> set[str]:
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "target" in line]
        files = {path: path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")}
        # Of a file that only the script could see.
        loops = [f"{path}: {file}" for path, file in files.items() if not os.path.exists(file)]
        return {*mounts, *loops, *map(str, insiders(os.getpid())), *(n for n in os.listdir("/tmp") if "target" in n)}


def insiders(starter: int) -> list[int]:
    """The processes that scripts of a process run in; those that have ended but are not reaped do not count."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if os.fsencode(INSIDE) in words and str(starter).encode() in words:
            found.append(int(name))
    return found
