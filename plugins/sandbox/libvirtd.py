"""A libvirtd with its log daemon and its guests, separate from any other libvirt of this machine.

Both daemons run in mount namespaces in which libvirt's directories are bound from one directory of the sandbox. Guests
are not children of libvirtd: they keep running when it ends, and the next libvirtd finds them; `processes` finds all.

libvirtd logs the serial output of guests through virtlogd, which keeps a file of at most 1 MiB and one older file.
When virtlogd itself is killed, running guests lose their log until they are restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from pvcd_plugins.sandbox import namespace, sockets
from pvcd_plugins.sandbox.service import Service
from pvcd_plugins.sandbox.state import PROC, ProcessId, start_time

CONSOLE_BYTES = 1024 * 1024
"""The size at which virtlogd starts a new file; it keeps one old file."""

_BINDS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "run": "/run/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}
# libvirtd looks up this user before it reads in qemu.conf that guests run as root; not every host has the user.
_USER_FILES = {
    "passwd": "libvirt-qemu:x:64055:64055:Libvirt Qemu:/var/lib/libvirt:/usr/sbin/nologin\n",
    "group": "libvirt-qemu:x:64055:\n",
}
# Where swtpm is installed, it keeps its logs and its certificate authority here.
_TPM_BINDS = {"log-swtpm": "/var/log/swtpm", "lib-swtpm": "/var/lib/swtpm-localca"}
_LONGEST_SOCKET = "virtlogd-sock"

_LIBVIRTD_CONF = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
unix_sock_admin_perms = "0700"
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
swtpm_user = "root"
swtpm_group = "root"
"""
_VIRTLOGD_CONF = f"""\
log_outputs = "3:stderr"
max_size = {CONSOLE_BYTES}
max_backups = 1
"""

# The first request of every libvirt client: list the authentication methods. Length, program, version, procedure (66),
# type, serial number and status.
_AUTH_LIST = struct.pack(">7I", 28, 0x20008086, 1, 66, 0, 0, 0)


def libvirtd(directory: Path, *, hostname: str | None = None) -> Service:
    """Return the libvirtd that keeps its files in `directory`; nodes that migrate to each other need host names."""

    def prepare() -> None:
        _prepare(directory)
        uuid = uuid5(NAMESPACE_URL, os.path.abspath(directory))
        (directory / "etc/libvirtd.conf").write_text(_LIBVIRTD_CONF.format(uuid=uuid))
        (directory / "etc/qemu.conf").write_text(_QEMU_CONF)
        for name, line in _USER_FILES.items():
            known = Path("/etc", name).read_text()
            (directory / name).write_text(known if "\nlibvirt-qemu:" in known else known + line)

    async def ready() -> bool:
        # libvirtd accepts connections before its drivers are up, but answers only afterwards.
        return bool(await _ask(_socket(directory, "libvirt-sock"), _AUTH_LIST))

    binds = _BINDS | {name: f"/etc/{name}" for name in _USER_FILES} | _tpm_binds()
    options = ("--network", *(() if hostname is None else ("--hostname", hostname)))
    return Service("libvirtd", _argv(directory, "libvirtd", binds, options), ready, prepare=prepare)


def virtlogd(directory: Path) -> Service:
    """Return the daemon that writes the console logs of the guests in `directory`; guests need it to start."""

    def prepare() -> None:
        _prepare(directory)
        (directory / "etc/virtlogd.conf").write_text(_VIRTLOGD_CONF)

    async def ready() -> bool:
        await _ask(_socket(directory, "virtlogd-sock"), b"")
        return True

    return Service("virtlogd", _argv(directory, "virtlogd", _BINDS), ready, prepare=prepare)


def uri(directory: Path) -> str:
    """Return the libvirt URI of the libvirtd in `directory`."""
    return f"qemu+unix:///system?socket={quote(str(_socket(directory, 'libvirt-sock')))}"


def tpm_directory(directory: Path) -> Path:
    """Return where the libvirtd in `directory` keeps the state of emulated TPMs."""
    return directory / "lib" / "swtpm"


def processes(directory: Path) -> set[ProcessId]:
    """Return the daemons and guests that run in the namespaces of `directory`, also those of an earlier sandbox."""
    try:
        ours = os.stat(directory / "run")
    except FileNotFoundError:
        return set()
    found = set()
    for pid in (int(name) for name in os.listdir(PROC) if name.isdecimal()):
        # A process may end in the meantime, and one that we may not look at is not ours.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            process = ProcessId(pid, start_time(pid))
            if os.path.samestat(os.stat(PROC / str(pid) / "root" / _BINDS["run"].lstrip("/")), ours):
                found.add(process)
    return found


def _argv(directory: Path, program: str, binds: Mapping[str, str], options: tuple[str, ...] = ()) -> tuple[str, ...]:
    pairs = [("--bind", f"{os.path.abspath(directory / name)}:{target}") for name, target in binds.items()]
    command = (program, "-f", f"/etc/libvirt/{program}.conf", "-p", f"/run/libvirt/{program}.pid")
    # Isolated (-I) and by path, the module runs from any directory and ignores Python's environment variables.
    return (sys.executable, "-I", str(namespace.__file__), *chain(*pairs), *options, "--", *command)


def _prepare(directory: Path) -> None:
    for name in _BINDS | _tpm_binds():
        (directory / name).mkdir(parents=True, exist_ok=True)
    sockets.prepare(directory, _LONGEST_SOCKET)


def _tpm_binds() -> dict[str, str]:
    return _TPM_BINDS if Path(_TPM_BINDS["lib-swtpm"]).is_dir() else {}


def _socket(directory: Path, name: str) -> Path:
    return sockets.directory(directory, _LONGEST_SOCKET) / name


async def _ask(socket: Path, question: bytes) -> bytes:
    """Return the beginning of a server's answer."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(question)
        return await reader.read(64) if question else b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
