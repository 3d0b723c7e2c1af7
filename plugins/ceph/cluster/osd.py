"""The real OSDs of this node, on BlueStore: under systemd where that runs the node, otherwise as daemons of their own.

An OSD has its folder where Ceph's settings say (`osd_data`), with a link `block` to its device. While one is made there
is beside the folders a file `preparing-<uuid>` that names its device, so that what was interrupted can be undone.
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

_MAKE_LIMIT = 300.0
"""Seconds for what works through a whole device."""
_END_LIMIT = 30.0
"""Seconds from SIGTERM to SIGKILL."""
_POLL = 0.1
_PREPARING = "preparing-"
_FLOCK = struct.Struct("hhqqi4x")
_SYSTEMD = Path("/run/systemd/system")


class CliOsdHost:
    """The OSDs of one node, which the CRUSH map knows as the host `node`."""

    def __init__(self, conf: str, node: str, user: str = "admin", deadline: float = 30.0) -> None:
        self._node = check_name("node", node)
        self._run = Programs(conf, user, deadline)
        self._lock = asyncio.Lock()
        """One OSD is made or removed at a time."""
        self._systemd = _SYSTEMD.is_dir()

    async def devices(self) -> list[Device]:
        """All block devices of this node, by path."""
        return await devices.look()

    async def check_device(self, path: str) -> str:
        """The true path of an unused block device; raises `DeviceRefused` for anything else."""
        return await devices.check(path)

    async def prepare_osd(self, device: str, weight: float) -> int:
        """Make a new OSD of an unused device and start it; returns its id as soon as it is up."""
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
        # By its input, since everybody can read the arguments of a program.
        made = await self._run.ceph("osd", "new", uuid, "-i", "-", "--format", "json", input=secret)
        osd: int = json.loads(made.stdout)["osdid"]
        folder = await self._folder(osd)
        await asyncio.to_thread(_furnish, folder, osd, path, key)
        await self._give_to_ceph(folder)
        options = ("--mkfs", "--osd-uuid", uuid, *self._as_ceph)
        await self._program("ceph-osd", "--conf", self._run.conf, "-i", str(osd), *options)
        name, place = f"osd.{osd}", ("root=default", f"host={self._node}")
        await self._run.ceph("osd", "crush", "add", name, f"{weight:.5f}", *place)
        # It would go to the host of this machine's name otherwise.
        await self._run.ceph("config", "set", name, "crush_location", " ".join(place))
        await self._start(osd)
        await self._until_up(osd, uuid)
        return osd

    async def _until_up(self, osd: int, uuid: str) -> None:
        end = time.monotonic() + self._run.deadline
        while not (await self._find(uuid))[1]:
            if time.monotonic() > end:
                raise CephError(f"The new OSD {osd} did not come up within {self._run.deadline:g} s; its log says why.")
            await asyncio.sleep(_POLL)

    async def undo_interrupted(self) -> None:
        """Undo what calls of `prepare_osd` left that never ended."""
        async with self._lock:
            await self._undo_interrupted()

    async def _undo_interrupted(self) -> None:
        parent = (await self._folder(0)).parent
        for intent in await asyncio.to_thread(lambda: sorted(parent.glob(f"{_PREPARING}*"))):
            await self._undo(intent)

    async def _undo(self, intent: Path) -> None:
        """Remove all of an OSD that was not finished. One that was ever up has data, and is finished."""
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
        """The id of the OSD with this UUID, and whether it was ever up."""
        dump = await self._run.ceph_json("osd", "dump")
        found = next((each for each in dump["osds"] if each["uuid"] == uuid), None)
        return (None, False) if found is None else (found["osd"], found["up_from"] > 0)

    async def local_osds(self) -> list[int]:
        """Those that have their data on devices of this node, by id."""
        zero = await self._folder(0)
        prefix = zero.name.removesuffix("0")
        blocks = await asyncio.to_thread(lambda: [*filter(Path.is_symlink, zero.parent.glob(f"{prefix}*/block"))])
        names = (block.parent.name.removeprefix(prefix) for block in blocks)
        return sorted(int(name) for name in names if name.isdecimal())

    async def osd_running(self, osd: int) -> bool:
        """Whether its daemon runs here."""
        return await asyncio.to_thread(_holder, await self._folder(osd)) is not None

    async def start_osd(self, osd: int) -> None:
        """Start one that was prepared here; fine when it runs."""
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
        """Stop it, wipe its device and forget it here; fine when that is done, also when the device is broken."""
        async with self._lock:
            await self._remove(osd)

    async def _remove(self, osd: int) -> None:
        folder = await self._folder(osd)
        if not await asyncio.to_thread(folder.is_dir):
            return
        block = folder / "block"
        if await asyncio.to_thread(lambda: block.is_file() and not block.is_symlink()):
            raise CephRefused(f"The OSD {osd} keeps its data in a file and not on a device: whoever made it ends it.")
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
        """End its daemon and see it gone."""
        if self._systemd:
            await self._program("systemctl", "disable", "--now", f"ceph-osd@{osd}")
        begun = time.monotonic()
        while (pid := await asyncio.to_thread(_holder, folder)) is not None:
            waited = time.monotonic() - begun
            if waited > 2 * _END_LIMIT:
                raise CephError(f"The OSD {osd} (process {pid}) cannot be ended.")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if waited < _END_LIMIT else signal.SIGKILL)
            await asyncio.sleep(_POLL)

    async def _wipe(self, device: Path, uuid: str) -> None:
        """Remove the mark of an OSD from its device, but of no other's, and not from one that is broken."""
        with contextlib.suppress(PvcdError):
            shown = await self._program("ceph-bluestore-tool", "show-label", "--dev", str(device))
            if any(label.get("osd_uuid") == uuid for label in json.loads(shown).values()):
                await self._program("wipefs", "--all", str(device))

    async def _folder(self, osd: int) -> Path:
        """Where the data of an OSD is, which Ceph's settings say."""
        options = ("--conf", self._run.conf, "--name", f"osd.{osd}")
        return Path((await self._program("ceph-conf", *options, "--show-config-value", "osd_data")).strip())

    async def _give_to_ceph(self, folder: Path) -> None:
        """Let the user that systemd runs OSDs as have the folder and the device, which a reboot takes away again."""
        if self._systemd:
            await self._program("chown", "--recursive", "ceph:ceph", str(folder))
            await self._program("chown", "--dereference", "ceph:ceph", str(folder / "block"))

    @property
    def _as_ceph(self) -> tuple[str, ...]:
        return ("--setuser", "ceph", "--setgroup", "ceph") if self._systemd else ()

    async def _program(self, *argv: str) -> str:
        result = await programs.run(argv, timeout=_MAKE_LIMIT, check=False)
        if result.returncode:
            said = words(result.stderr.decode(errors="replace")) or f"exit status {result.returncode}"
            raise CephError(f"{argv[0]} failed: {said}.")
        return result.stdout.decode(errors="replace")


def _furnish(folder: Path, osd: int, device: str, key: str) -> None:
    """Make the folder of a new OSD, with its key and the link to its device."""
    folder.mkdir(mode=0o750)
    (folder / "block").symlink_to(_lasting(device))
    keyring = folder / "keyring"
    keyring.touch(mode=0o600)
    keyring.write_text(f"[osd.{osd}]\nkey = {key}\n")


def _lasting(device: str) -> str:
    """A name of the device that stays the same over reboots, where there is one."""
    links = Path("/dev/disk/by-id")
    names = sorted(links.iterdir()) if links.is_dir() else []
    return next((str(name) for name in names if os.path.realpath(name) == device), device)


def _holder(folder: Path) -> int | None:
    """The process of the OSD with this folder, which holds a lock on its file `fsid` as long as it runs."""
    try:
        with (folder / "fsid").open("rb+") as file:
            question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, question))
    except FileNotFoundError:
        return None
    return None if kind == fcntl.F_UNLCK else int(pid)


def _write(file: Path, text: str) -> None:
    """Write a file so that it outlives a power cut."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())


def _read(file: Path) -> str:
    """What a file says; nothing when there is none."""
    try:
        return file.read_text().strip()
    except OSError as error:
        if error.errno == errno.ENOENT:
            return ""
        raise
