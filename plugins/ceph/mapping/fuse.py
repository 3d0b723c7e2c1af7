"""Volumes as loop devices: a storage daemon per volume exports it as a file (FUSE), which backs a loop device.

    <directory>/<pool>/<volume>/disk    the content of the volume, a mount point
                               /pid     the process id of the daemon, which removes it

A daemon is found by the path of its `pid` among its arguments and a loop device by its `disk`, so the rest is found
whatever was killed. It must be torn down in this order: file systems, loop device, daemon, `disk`. The kernel detaches
a mounted loop device only later, and `disk` cannot be unmounted while a loop device uses it.
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
from pvcd_plugins.ceph.cluster import DEAD_CLIENT_SECONDS, InUse
from pvcd_plugins.ceph.mapping import IsMapped, Mapped, MappingFailed
from pvcd_plugins.ceph.mapping.places import Places
from pvcd_plugins.ceph.mapping.rbd import Rbd

PROC, BLOCK = Path("/proc"), Path("/sys/block")
START_SECONDS = 30.0
FLUSH_SECONDS = 60.0
STEP_SECONDS = 10.0
"""Limit of every other step."""


class FuseMapping:
    """The mapping that needs no kernel module except FUSE."""

    def __init__(self, directory: Path, *, conf: Path, user: str) -> None:
        self._places = Places(directory)
        self._rbd = Rbd(conf, user)
        self._source = {"driver": "rbd", "conf": str(conf), "user": user, "discard": "unmap"}

    async def map(self, pool: str, volume: str) -> Path:
        """Map a volume and return its device."""
        with self._places.hold(pool, volume) as place:
            device = await asyncio.to_thread(_complete_device, place)
            if device is not None:
                raise IsMapped(pool, volume, device)
            leftovers = await _tear_down(place)
            await self._rbd.refuse_if_open(pool, volume, DEAD_CLIENT_SECONDS if leftovers else 0.0)
            try:
                return await self._set_up(place, pool, volume)
            except BaseException:  # also when canceled: nothing can use an incomplete mapping
                with contextlib.suppress(PvcdError):  # `clean` will remove it
                    await _tear_down(place)
                raise

    async def unmap(self, pool: str, volume: str) -> None:
        """Flush a volume and remove its device; no error if it is not mapped."""
        with self._places.hold(pool, volume) as place:
            flushed = True
            if await asyncio.to_thread(_daemon, place) is not None:
                for device in await asyncio.to_thread(_devices, place):
                    # In another process, because a thread that waits for Ceph in the kernel cannot be ended.
                    flushed &= not (
                        await programs.run(["sync", str(device)], timeout=FLUSH_SECONDS, check=False)
                    ).returncode
                    await asyncio.to_thread(_refuse_if_held, device, f"{pool}/{volume}")
            await _tear_down(place)
        if not flushed:
            raise MappingFailed(
                f"Cannot flush volume '{pool}/{volume}': it was unmapped, and its last writes are lost."
            )

    async def mapped(self) -> list[Mapped]:
        """Return the mappings of pvcd on this node, by pool and volume."""
        return await asyncio.to_thread(
            lambda: [Mapped(*key, device=_complete_device(self._places.at(*key))) for key in self._places.all()]
        )

    async def clean(self) -> list[Mapped]:
        """Remove what killed processes left behind, and return what was removed."""
        removed, sentences = [], []
        for each in await self.mapped():
            with contextlib.suppress(Locked), self._places.hold(each.pool, each.volume) as place:
                if await asyncio.to_thread(_complete_device, place) is not None:
                    continue
                try:
                    await _tear_down(place)
                    removed.append(each)
                except PvcdError as error:
                    sentences.append(f"{each.pool}/{each.volume}: {error.sentence}")
        if sentences:
            raise MappingFailed(f"Cannot clean up mapped volumes: {' '.join(sentences)}")
        return removed

    async def _set_up(self, place: Path, pool: str, volume: str) -> Path:
        disk = place / "disk"
        disk.touch(mode=0o600)
        source = self._source | {"node-name": "disk", "pool": pool, "image": volume}
        export = {"type": "fuse", "id": "disk", "node-name": "disk", "mountpoint": str(disk), "writable": True}
        argv = ["qemu-storage-daemon", "--daemonize", "--pidfile", str(place / "pid"), "--blockdev", json.dumps(source)]
        await programs.run([*argv, "--export", json.dumps(export | {"allow-other": "off"})], timeout=START_SECONDS)
        # Direct I/O caches nothing twice, and needs no memory for writes that should free memory.
        result = await programs.run(["losetup", "--find", "--show", "--direct-io=on", str(disk)], timeout=STEP_SECONDS)
        return Path(result.stdout.decode().strip())


def _complete_device(place: Path) -> Path | None:
    """Return the device of a mapping; None if a part of it is missing."""
    devices = _devices(place)
    return devices[0] if len(devices) == 1 and _daemon(place) is not None else None


def _daemon(place: Path) -> int | None:
    """Return the process id of the storage daemon. A zombie has no arguments, so it does not count."""
    mark = os.fsencode(place / "pid")
    for name in filter(str.isdecimal, os.listdir(PROC)):
        with contextlib.suppress(OSError):  # the process has just ended
            arguments = (PROC / name / "cmdline").read_bytes().split(b"\0")
            if mark in arguments and os.path.basename(arguments[0]) == b"qemu-storage-daemon":
                return int(name)
    return None


def _devices(place: Path) -> list[Path]:
    """Return the loop devices that the volume backs."""
    disk, found = str(place / "disk"), []
    for file in BLOCK.glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # the device has just been detached
            if file.read_text().rstrip("\n") == disk:
                found.append(Path("/dev", file.parts[-3]))
    return sorted(found)


def _mounts(where: Callable[[str, str], bool]) -> list[str]:
    """Return the mount points whose device number and path satisfy `where`, the last one first."""
    found = []
    for line in (PROC / "self/mountinfo").read_text().splitlines():
        number, path = line.split(" ")[2], _unescaped(line.split(" ")[4])
        if where(number, path):
            found.append(path)
    return found[::-1]


def _unescaped(path: str) -> str:
    """Decode the octal escapes that the kernel uses for spaces and similar characters."""
    for escaped, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escaped, character)
    return path


def _refuse_if_held(device: Path, volume: str) -> None:
    """Raise `InUse` while a device is mounted in any namespace or held by another device."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise MappingFailed(f"Cannot unmap volume {volume!r}: cannot open {device} ({error.strerror}).") from error
        raise InUse("volume", f"unmap volume {volume!r}", f"its device {device} is mounted or held") from None


async def _tear_down(place: Path) -> bool:
    """Remove all existing parts of a mapping; return whether there were any."""
    devices = await asyncio.to_thread(_devices, place)
    for device in devices:
        await _unmount_all_of(device)
        await programs.run(["losetup", "--detach", str(device)], timeout=STEP_SECONDS, check=False)
        await _until(partial(_is_gone, place, device), f"Cannot detach {device}: it is still in use.")
    ended = await _end_daemon(place)
    disk = place / "disk"
    for path in await asyncio.to_thread(_mounts, lambda _, path: path == str(disk)):
        await programs.run(["umount", "--internal-only", path], timeout=STEP_SECONDS)
    leftover = disk.exists()
    for file in (disk, place / "pid"):
        file.unlink(missing_ok=True)
    return bool(devices or ended or leftover)


def _is_gone(place: Path, device: Path) -> bool:
    return device not in _devices(place)


async def _unmount_all_of(device: Path) -> None:
    """Unmount the file systems of a device whose daemon is dead, so that no write can reach it any more."""
    number = await asyncio.to_thread((BLOCK / device.name / "dev").read_text)
    for path in await asyncio.to_thread(_mounts, lambda each, _: each == number.strip()):
        await programs.run(["umount", "--internal-only", path], timeout=STEP_SECONDS)


async def _end_daemon(place: Path) -> bool:
    """Let the daemon close the volume and end, or kill it; return whether there was one."""
    pid = await asyncio.to_thread(_daemon, place)
    if pid is None:
        return False
    async with _watched(pid) as ended:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if await asyncio.to_thread(_daemon, place) == pid:  # the process id may have been reused
                os.kill(pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STEP_SECONDS):
                    await ended.wait()
                    return True
    raise MappingFailed(f"Cannot stop the storage daemon: process {pid} does not end.")


@contextlib.asynccontextmanager
async def _watched(pid: int) -> AsyncIterator[asyncio.Event]:
    """Yield an event that is set as soon as a process has ended."""
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


async def _until(condition: Callable[[], bool], failure: str) -> None:
    try:
        async with asyncio.timeout(STEP_SECONDS):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - the kernel sends no event
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise MappingFailed(failure) from None
