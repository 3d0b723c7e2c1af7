"""The real OSDs of this node, on BlueStore: units of systemd where it runs the node, otherwise plain daemons.

The folder of an OSD is where Ceph's setting `osd_data` says, with a link `block` to its device. While an OSD is made,
a file `preparing-<uuid>` beside the folders names its device, so that an interruption can be undone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import struct
import time
from pathlib import Path
from uuid import uuid4

from pvcd import NotFound, PvcdError, programs
from pvcd_plugins.ceph.cluster import CephError, CephRefused, Device, check_name, check_weight, devices
from pvcd_plugins.ceph.cluster.programs import Programs, words

_MAKE_SECONDS = 300.0
"""Limit for programs that work through a whole device."""
_END_SECONDS = 30.0
"""Time from SIGTERM to SIGKILL."""
_POLL_SECONDS = 0.1
_PREPARING = "preparing-"
_FLOCK = struct.Struct("hhqqi4x")
_SYSTEMD = Path("/run/systemd/system")


class CliOsdHost:
    """The OSDs of one node, which is the host `node` in the CRUSH map."""

    def __init__(self, conf: str, node: str, user: str = "admin", deadline: float = 30.0) -> None:
        self._node = check_name("node", node)
        self._run = Programs(conf, user, deadline)
        self._lock = asyncio.Lock()
        """Held while an OSD is made or removed."""
        self._systemd = _SYSTEMD.is_dir()

    async def devices(self) -> list[Device]:
        """Return all block devices of this node, by path."""
        return await devices.look()

    async def check_device(self, path: str) -> str:
        """Return the real path of an unused block device; raises `DeviceRefused` for anything else."""
        return await devices.check(path)

    async def prepare_osd(self, device: str, weight: float) -> int:
        """Make an OSD of an unused device and start it; returns its id as soon as it is up."""
        check_weight(weight)
        async with self._lock:
            await self._undo_interrupted()
            path = await self.check_device(device)
            uuid = str(uuid4())
            intent = (await self._folder(0)).parent / f"{_PREPARING}{uuid}"
            await asyncio.to_thread(_write, intent, path)
            try:
                osd = await self._make(uuid, path, weight)
            except PvcdError:
                await self._undo(intent)
                raise
            await asyncio.to_thread(intent.unlink)
            return osd

    async def _make(self, uuid: str, path: str, weight: float) -> int:
        key = (await self._program("ceph-authtool", "--gen-print-key")).strip()
        secret = json.dumps({"cephx_secret": key}).encode()
        # Through stdin, because every user can read the arguments of a program.
        made = await self._run.ceph("osd", "new", uuid, "-i", "-", "--format", "json", input=secret)
        osd: int = json.loads(made.stdout)["osdid"]
        folder = await self._folder(osd)
        await asyncio.to_thread(_create_folder, folder, osd, path, key)
        await self._give_to_ceph(folder)
        options = ("--mkfs", "--osd-uuid", uuid, *self._as_ceph)
        await self._program("ceph-osd", "--conf", self._run.conf, "-i", str(osd), *options)
        name, place = f"osd.{osd}", ("root=default", f"host={self._node}")
        await self._run.ceph("osd", "crush", "add", name, f"{weight:.5f}", *place)
        # Without it, the OSD would move to the host with the name of this machine.
        await self._run.ceph("config", "set", name, "crush_location", " ".join(place))
        await self._start(osd)
        await self._until_up(osd, uuid)
        return osd

    async def _until_up(self, osd: int, uuid: str) -> None:
        end = time.monotonic() + self._run.deadline
        while not (await self._find(uuid))[1]:
            if time.monotonic() > end:
                raise CephError(
                    f"Cannot start OSD {osd}: not up within {self._run.deadline:g} s. See the log of its daemon."
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def undo_interrupted(self) -> None:
        """Clean up after interrupted calls of `prepare_osd`."""
        async with self._lock:
            await self._undo_interrupted()

    async def _undo_interrupted(self) -> None:
        parent = (await self._folder(0)).parent
        for intent in await asyncio.to_thread(lambda: sorted(parent.glob(f"{_PREPARING}*"))):
            await self._undo(intent)

    async def _undo(self, intent: Path) -> None:
        """Remove an OSD whose creation was interrupted, unless it was ever up and so may hold data."""
        uuid = intent.name.removeprefix(_PREPARING)
        osd, ever_up = await self._find(uuid)
        if osd is not None and not ever_up:
            await self._stop(osd, await self._folder(osd))
            _, ever_up = await self._find(uuid)
        if not ever_up:
            if osd is not None:
                await self._remove(osd)
                await self._run.ceph("osd", "purge", str(osd), "--yes-i-really-mean-it")
            await self._wipe(Path(await asyncio.to_thread(intent.read_text)), uuid)
        elif osd is not None and not await self.osd_running(osd):
            await self._start(osd)
        await asyncio.to_thread(intent.unlink)

    async def _find(self, uuid: str) -> tuple[int | None, bool]:
        """Return the id of the OSD with this UUID, and whether it was ever up."""
        dump = await self._run.ceph_json("osd", "dump")
        found = next((each for each in dump["osds"] if each["uuid"] == uuid), None)
        return (None, False) if found is None else (found["osd"], found["up_from"] > 0)

    async def local_osds(self) -> list[int]:
        """Return the OSDs that have their data on devices of this node, by id."""
        zero = await self._folder(0)
        prefix = zero.name.removesuffix("0")
        blocks = await asyncio.to_thread(lambda: [*filter(Path.is_symlink, zero.parent.glob(f"{prefix}*/block"))])
        names = (block.parent.name.removeprefix(prefix) for block in blocks)
        return sorted(int(name) for name in names if name.isdecimal())

    async def osd_running(self, osd: int) -> bool:
        """Tell whether the daemon of an OSD runs here."""
        return await asyncio.to_thread(_holder, await self._folder(osd)) is not None

    async def start_osd(self, osd: int) -> None:
        """Start an OSD that was prepared here; no error if it runs."""
        if osd not in await self.local_osds():
            raise NotFound("OSD", osd)
        if not await self.osd_running(osd):
            await self._start(osd)

    async def _start(self, osd: int) -> None:
        await self._give_to_ceph(await self._folder(osd))
        if self._systemd:
            await self._program("systemctl", "enable", "--now", f"ceph-osd@{osd}")
        else:
            await self._program("ceph-osd", "--conf", self._run.conf, "-i", str(osd))

    async def remove_osd(self, osd: int) -> None:
        """Stop an OSD, wipe its device and delete its folder; no error if that is done or if the device is broken."""
        async with self._lock:
            await self._remove(osd)

    async def _remove(self, osd: int) -> None:
        folder = await self._folder(osd)
        if not await asyncio.to_thread(folder.is_dir):
            return
        block = folder / "block"
        if await asyncio.to_thread(lambda: block.is_file() and not block.is_symlink()):
            raise CephRefused(f"Cannot remove OSD {osd}: it keeps its data in a file, not on a device.")
        await self._stop(osd, folder)
        await self._run.ceph("osd", "down", str(osd))
        uuid = await asyncio.to_thread(_read, folder / "fsid")
        if uuid:
            await self._wipe(block, uuid)
        if await asyncio.to_thread(folder.is_mount):
            await self._program("umount", str(folder))
        await asyncio.to_thread(shutil.rmtree, folder)
        await self._run.ceph("config", "rm", f"osd.{osd}", "crush_location")

    async def _stop(self, osd: int, folder: Path) -> None:
        """End the daemon of an OSD and wait until it is gone."""
        if self._systemd:
            await self._program("systemctl", "disable", "--now", f"ceph-osd@{osd}")
        begun = time.monotonic()
        while (pid := await asyncio.to_thread(_holder, folder)) is not None:
            waited = time.monotonic() - begun
            if waited > 2 * _END_SECONDS:
                raise CephError(f"Cannot stop OSD {osd}: process {pid} does not end.")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if waited < _END_SECONDS else signal.SIGKILL)
            await asyncio.sleep(_POLL_SECONDS)

    async def _wipe(self, device: Path, uuid: str) -> None:
        """Remove the signature of an OSD from its device; skip a broken device and the signature of another OSD."""
        with contextlib.suppress(PvcdError):
            shown = await self._program("ceph-bluestore-tool", "show-label", "--dev", str(device))
            if any(label.get("osd_uuid") == uuid for label in json.loads(shown).values()):
                await self._program("wipefs", "--all", str(device))

    async def _folder(self, osd: int) -> Path:
        """Return the folder of an OSD, as Ceph's settings define it."""
        options = ("--conf", self._run.conf, "--name", f"osd.{osd}")
        return Path((await self._program("ceph-conf", *options, "--show-config-value", "osd_data")).strip())

    async def _give_to_ceph(self, folder: Path) -> None:
        """Give the folder and the device to the user of systemd's OSDs; a reboot resets the owner of the device."""
        if self._systemd:
            await self._program("chown", "--recursive", "ceph:ceph", str(folder))
            await self._program("chown", "--dereference", "ceph:ceph", str(folder / "block"))

    @property
    def _as_ceph(self) -> tuple[str, ...]:
        return ("--setuser", "ceph", "--setgroup", "ceph") if self._systemd else ()

    async def _program(self, *argv: str) -> str:
        result = await programs.run(argv, timeout=_MAKE_SECONDS, check=False)
        if result.returncode:
            reason = words(result.stderr.decode(errors="replace")) or f"exit status {result.returncode}"
            raise CephError(f"{argv[0]} failed: {reason}.")
        return result.stdout.decode(errors="replace")


def _create_folder(folder: Path, osd: int, device: str, key: str) -> None:
    """Create the folder of a new OSD, with its key and the link to its device."""
    folder.mkdir(mode=0o750)
    (folder / "block").symlink_to(_stable_path(device))
    keyring = folder / "keyring"
    keyring.touch(mode=0o600)
    keyring.write_text(f"[osd.{osd}]\nkey = {key}\n")


def _stable_path(device: str) -> str:
    """Return a path of the device that survives reboots, if it has one."""
    links = Path("/dev/disk/by-id")
    names = sorted(links.iterdir()) if links.is_dir() else []
    return next((str(name) for name in names if os.path.realpath(name) == device), device)


def _holder(folder: Path) -> int | None:
    """Return the process of the OSD with this folder, which locks its file `fsid` while it runs."""
    try:
        with (folder / "fsid").open("rb+") as file:
            query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, query))
    except FileNotFoundError:
        return None
    return None if kind == fcntl.F_UNLCK else int(pid)


def _write(file: Path, text: str) -> None:
    """Write a file that survives a power cut."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())


def _read(file: Path) -> str:
    """Return the content of a file; nothing if there is none."""
    try:
        return file.read_text().strip()
    except OSError as error:
        if error.errno == errno.ENOENT:
            return ""
        raise
