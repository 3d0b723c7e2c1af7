"""Volumes as loop devices: a storage daemon per volume shows it as a file (FUSE), of which a loop device is made.

    <directory>/<pool>/<volume>/disk    the file that is the volume, a mount point of its own
                               /pid     of the daemon, removed by itself

A daemon is known by the path of its `pid` among its arguments and a loop device by its `disk`, so that whatever was
killed, the rest is found. Apart they are taken in this order only: file systems, loop device, daemon, `disk`. A loop
device that is mounted would be let go of later by the kernel, and `disk` cannot be unmounted under a loop device.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from pvcd import Locked, PvcdError, programs
from pvcd_plugins.ceph.cluster import InUse
from pvcd_plugins.ceph.mapping import IsMapped, Mapped, MappingFailed
from pvcd_plugins.ceph.mapping.places import Places
from pvcd_plugins.ceph.mapping.rbd import DEAD_CLIENT, Rbd

PROC, BLOCK = Path("/proc"), Path("/sys/block")
START_LIMIT = 30.0
FLUSH_LIMIT = 60.0
STEP_LIMIT = 10.0
"""Seconds that each other step may take."""


class FuseMapping:
    """The way that needs no kernel module but FUSE's."""

    def __init__(self, directory: Path, *, conf: Path, user: str) -> None:
        self._places = Places(directory)
        self._rbd = Rbd(conf, user)
        self._source = {"driver": "rbd", "conf": str(conf), "user": user, "discard": "unmap"}

    async def map(self, pool: str, volume: str) -> Path:
        """The device that is the volume from now on."""
        with self._places.hold(pool, volume) as place:
            device = await asyncio.to_thread(_whole, place)
            if device is not None:
                raise IsMapped(pool, volume, device)
            left = await _take_apart(place)
            await self._rbd.refuse_if_open(pool, volume, DEAD_CLIENT if left else 0.0)
            try:
                return await self._put_up(place, pool, volume)
            except BaseException:  # also when we are cancelled: half a mapping is of no use to anybody
                with contextlib.suppress(PvcdError):  # `clean` will find it
                    await _take_apart(place)
                raise

    async def unmap(self, pool: str, volume: str) -> None:
        """Let all that was written reach the volume, and take its device away; fine when it is not mapped."""
        with self._places.hold(pool, volume) as place:
            flushed = True
            if await asyncio.to_thread(_daemon, place) is not None:
                for device in await asyncio.to_thread(_devices, place):
                    # A program, since what waits for Ceph in the kernel could not be ended within this process.
                    flushed &= not (
                        await programs.run(["sync", str(device)], timeout=FLUSH_LIMIT, check=False)
                    ).returncode
                    await asyncio.to_thread(_refuse_if_held, device, f"{pool}/{volume}")
            await _take_apart(place)
        if not flushed:
            raise MappingFailed(f"The volume {pool}/{volume} is unmapped, but its last writes are lost.")

    async def mapped(self) -> list[Mapped]:
        """What is mapped here by us, by pool and volume."""
        return await asyncio.to_thread(
            lambda: [Mapped(*key, device=_whole(self._places.at(*key))) for key in self._places.all()]
        )

    async def clean(self) -> list[Mapped]:
        """Remove what killed processes left behind; what was removed."""
        removed, sentences = [], []
        for each in await self.mapped():
            with contextlib.suppress(Locked), self._places.hold(each.pool, each.volume) as place:
                if await asyncio.to_thread(_whole, place) is not None:
                    continue
                try:
                    await _take_apart(place)
                    removed.append(each)
                except PvcdError as error:
                    sentences.append(f"{each.pool}/{each.volume}: {error.sentence}")
        if sentences:
            raise MappingFailed(f"What is left of mapped volumes could not be removed: {' '.join(sentences)}")
        return removed

    async def _put_up(self, place: Path, pool: str, volume: str) -> Path:
        disk = place / "disk"
        disk.touch(mode=0o600)
        source = self._source | {"node-name": "disk", "pool": pool, "image": volume}
        export = {"type": "fuse", "id": "disk", "node-name": "disk", "mountpoint": str(disk), "writable": True}
        argv = ["qemu-storage-daemon", "--daemonize", "--pidfile", str(place / "pid"), "--blockdev", json.dumps(source)]
        await programs.run([*argv, "--export", json.dumps(export | {"allow-other": "off"})], timeout=START_LIMIT)
        # Direct, so that nothing is kept twice and no memory is needed to write what should free memory.
        result = await programs.run(["losetup", "--find", "--show", "--direct-io=on", str(disk)], timeout=STEP_LIMIT)
        return Path(result.stdout.decode().strip())


def _whole(place: Path) -> Path | None:
    """The device of a mapping of which every part is there."""
    devices = _devices(place)
    return devices[0] if len(devices) == 1 and _daemon(place) is not None else None


def _daemon(place: Path) -> int | None:
    """The process that shows the volume as a file. One that has ended but is not reaped has no arguments."""
    mark = os.fsencode(place / "pid")
    for name in filter(str.isdecimal, os.listdir(PROC)):
        with contextlib.suppress(OSError):  # it has just ended
            arguments = (PROC / name / "cmdline").read_bytes().split(b"\0")
            if mark in arguments and os.path.basename(arguments[0]) == b"qemu-storage-daemon":
                return int(name)
    return None


def _devices(place: Path) -> list[Path]:
    """The loop devices whose file is the volume."""
    disk, found = str(place / "disk"), []
    for file in BLOCK.glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # it has just been let go of
            if file.read_text().rstrip("\n") == disk:
                found.append(Path("/dev", file.parts[-3]))
    return sorted(found)


def _mounts(where: Callable[[str, str], bool]) -> list[str]:
    """The mount points of which `where` says yes to the device number and the path, the last one first."""
    found = []
    for line in (PROC / "self/mountinfo").read_text().splitlines():
        number, path = line.split(" ")[2], _unescaped(line.split(" ")[4])
        if where(number, path):
            found.append(path)
    return found[::-1]


def _unescaped(path: str) -> str:
    """The kernel writes blanks and the like as three octal digits."""
    for escaped, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escaped, character)
    return path


def _refuse_if_held(device: Path, name: str) -> None:
    """Raise `InUse` while a device is mounted, in whatever namespace, or held by another device."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise MappingFailed(f"The device {device} cannot be opened: {error.strerror}.") from error
        raise InUse("volume", name, f"its device {device} is mounted or held otherwise") from None


async def _take_apart(place: Path) -> bool:
    """Remove everything of a mapping, whichever parts of it are there; whether there was any."""
    devices = await asyncio.to_thread(_devices, place)
    for device in devices:
        await _unmount_all_of(device)
        await programs.run(["losetup", "--detach", str(device)], timeout=STEP_LIMIT, check=False)
        await _until(partial(_is_gone, place, device), f"The device {device} is still held.")
    ended = await _end_daemon(place)
    disk = place / "disk"
    for path in await asyncio.to_thread(_mounts, lambda _, path: path == str(disk)):
        await programs.run(["umount", "--internal-only", path], timeout=STEP_LIMIT)
    left = disk.exists()
    for file in (disk, place / "pid"):
        file.unlink(missing_ok=True)
    return bool(devices or ended or left)


def _is_gone(place: Path, device: Path) -> bool:
    return device not in _devices(place)


async def _unmount_all_of(device: Path) -> None:
    """Unmount the file systems of a device whose daemon is dead, which nothing can be written to any more."""
    number = await asyncio.to_thread((BLOCK / device.name / "dev").read_text)
    for path in await asyncio.to_thread(_mounts, lambda each, _: each == number.strip()):
        await programs.run(["umount", "--internal-only", path], timeout=STEP_LIMIT)


async def _end_daemon(place: Path) -> bool:
    """Let the daemon close the volume and end, or kill it; whether there was one."""
    pid = await asyncio.to_thread(_daemon, place)
    if pid is None:
        return False
    async with _watched(pid) as ended:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if await asyncio.to_thread(_daemon, place) == pid:  # and not another one by now that has its number
                os.kill(pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STEP_LIMIT):
                    await ended.wait()
                    return True
    raise MappingFailed(f"The storage daemon with process id {pid} does not end.")


@contextlib.asynccontextmanager
async def _watched(pid: int) -> AsyncIterator[asyncio.Event]:
    """An event that says when a process has ended; at once, when it had."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        ended.set()
        yield ended
        return
    loop.add_reader(descriptor, ended.set)
    try:
        yield ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _until(condition: Callable[[], bool], otherwise: str) -> None:
    try:
        async with asyncio.timeout(STEP_LIMIT):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise MappingFailed(otherwise) from None
