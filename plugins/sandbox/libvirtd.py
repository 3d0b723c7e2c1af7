"""A libvirtd with its log daemon and its guests, apart from any other libvirt of this machine.

Both daemons run in mount namespaces in which libvirt's directories are bound from one directory of the sandbox. Guests
are children of nobody: they live on when libvirtd ends and are found again by the next one; `processes` finds them all.

libvirtd takes the serial output of guests through virtlogd, which keeps at most 1 MiB of it and as much of what was
before it. When virtlogd itself is killed, guests that run lose their log until they are started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import struct
import sys
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from pvcd_plugins.sandbox import namespace
from pvcd_plugins.sandbox.service import Service
from pvcd_plugins.sandbox.state import PROC, ProcessId, start_time

CONSOLE_BYTES = 1024 * 1024
"""The size at which virtlogd begins a new file; it keeps one old one."""

_BINDS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "run": "/run/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}
# libvirtd looks up a user of this name before it reads in qemu.conf that it should be root; not every host has one.
_USER_FILES = {
    "passwd": "libvirt-qemu:x:64055:64055:Libvirt Qemu:/var/lib/libvirt:/usr/sbin/nologin\n",
    "group": "libvirt-qemu:x:64055:\n",
}
_MAX_SOCKET = 107  # bytes in the address of a Unix socket

_LIBVIRTD_CONF = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
listen_tls = 0
listen_tcp = 0
host_uuid = "{uuid}"
log_outputs = "3:stderr"
"""
_QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "logd"
max_core = 0
"""
_VIRTLOGD_CONF = f"""\
log_outputs = "3:stderr"
max_size = {CONSOLE_BYTES}
max_backups = 1
"""

# libvirt's first question of every client: which ways to authenticate are there? Length, program, version, procedure
# (66), type, serial number and status.
_AUTH_LIST = struct.pack(">7I", 28, 0x20008086, 1, 66, 0, 0, 0)


def libvirtd(directory: Path, *, hostname: str | None = None) -> Service:
    """The libvirtd that keeps all it has in `directory`; nodes that migrate to each other need names of their own."""

    def prepare() -> None:
        _prepare(directory)
        uuid = uuid5(NAMESPACE_URL, os.path.abspath(directory))
        (directory / "etc/libvirtd.conf").write_text(_LIBVIRTD_CONF.format(uuid=uuid))
        (directory / "etc/qemu.conf").write_text(_QEMU_CONF)
        for name, line in _USER_FILES.items():
            known = Path("/etc", name).read_text()
            (directory / name).write_text(known if "\nlibvirt-qemu:" in known else known + line)

    async def ready() -> bool:
        # It takes connections before its drivers are up, but answers only afterwards.
        return bool(await _ask(_socket(directory, "libvirt-sock"), _AUTH_LIST))

    binds = _BINDS | {name: f"/etc/{name}" for name in _USER_FILES}
    options = ("--network", *(() if hostname is None else ("--hostname", hostname)))
    return Service("libvirtd", _argv(directory, "libvirtd", binds, options), ready, prepare=prepare)


def virtlogd(directory: Path) -> Service:
    """The daemon that writes the console logs of the guests in `directory`; needed when the first guest starts."""

    def prepare() -> None:
        _prepare(directory)
        (directory / "etc/virtlogd.conf").write_text(_VIRTLOGD_CONF)

    async def ready() -> bool:
        await _ask(_socket(directory, "virtlogd-sock"), b"")
        return True

    return Service("virtlogd", _argv(directory, "virtlogd", _BINDS), ready, prepare=prepare)


def uri(directory: Path) -> str:
    """What to connect to for the libvirtd in `directory`."""
    return f"qemu+unix:///system?socket={quote(str(_socket(directory, 'libvirt-sock')))}"


def processes(directory: Path) -> set[ProcessId]:
    """The daemons and guests that live in the namespaces of `directory`, whoever started them."""
    try:
        ours = os.stat(directory / "run")
    except FileNotFoundError:
        return set()
    found = set()
    for pid in (int(name) for name in os.listdir(PROC) if name.isdecimal()):
        # A process may end while we look at it, and what lies in other users' namespaces is not ours.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            process = ProcessId(pid, start_time(pid))
            if os.path.samestat(os.stat(PROC / str(pid) / "root" / _BINDS["run"].lstrip("/")), ours):
                found.add(process)
    return found


def release(directory: Path) -> None:
    """Remove the one thing that may lie outside of `directory`: the short name of its sockets."""
    _link(directory).unlink(missing_ok=True)


def _argv(directory: Path, program: str, binds: Mapping[str, str], options: tuple[str, ...] = ()) -> tuple[str, ...]:
    pairs = [("--bind", f"{os.path.abspath(directory / name)}:{target}") for name, target in binds.items()]
    command = (program, "-f", f"/etc/libvirt/{program}.conf", "-p", f"/run/libvirt/{program}.pid")
    # Isolated, the module runs wherever the project lies, and without its environment.
    return (sys.executable, "-I", str(namespace.__file__), *chain(*pairs), *options, "--", *command)


def _prepare(directory: Path) -> None:
    for name in _BINDS:
        (directory / name).mkdir(parents=True, exist_ok=True)
    link = _link(directory)
    if _socket(directory, "libvirt-sock").parent == link and not link.is_symlink():
        with contextlib.suppress(FileExistsError):  # both daemons prepare at the same time
            link.symlink_to(os.path.abspath(directory / "run"))


def _socket(directory: Path, name: str) -> Path:
    """The path of a socket as clients use it: under a short link where the true one is too long for an address."""
    true = Path(os.path.abspath(directory / "run" / name))
    return true if len(os.fsencode(true)) <= _MAX_SOCKET else _link(directory) / name


def _link(directory: Path) -> Path:
    return Path("/run", f"pvcd-{hashlib.sha256(os.fsencode(os.path.abspath(directory))).hexdigest()[:12]}")


async def _ask(socket: Path, question: bytes) -> bytes:
    """The beginning of a server's answer."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(question)
        return await reader.read(64) if question else b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
