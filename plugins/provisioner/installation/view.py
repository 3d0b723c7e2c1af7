"""The part of this machine that an installation script sees: a root directory and a user namespace of its own.

Of the standard library only, for `inside.py`. The steps, each in the process that may do it:

    open_trees        the directories to show, before the private /tmp hides what is below the machine's own
    user_namespace    user 0 of the script is a user of this machine who owns no file and no process
    build, enter      a new root: programs and libraries read-only, the allowed part of /etc, own disks, nothing else
    separate          in the user namespace: mounts, processes and, if wanted, network of the script's own
    limit             no more capabilities than building a VM needs, and a filter of system calls, made by calls.py

A capability of the script counts in its own namespaces only. Hence it loads no module, sets no clock, makes no device
and mounts no file system of a device; and to files of this machine it is just another user, who owns none of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import signal
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "confine" not in sys.modules:
    from pvcd import programs

    confine = programs.confine
else:
    confine = sys.modules["confine"]

TREES = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr")
"""Programs and libraries, which scripts see and cannot change."""
ETC = (
    *(
        "alternatives",
        "apt/keyrings",
        "apt/trusted.gpg",
        "apt/trusted.gpg.d",
        "ca-certificates",
        "ca-certificates.conf",
    ),
    *("debian_version", "gai.conf", "group", "host.conf", "hostname", "hosts", "ld.so.cache", "ld.so.conf"),
    *("ld.so.conf.d", "locale.alias", "localtime", "login.defs", "magic", "mime.types", "mke2fs.conf", "netconfig"),
    *("nsswitch.conf", "os-release", "passwd", "perl", "protocols", "python3", "resolv.conf", "rpc", "services"),
    *("shells", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone", "xattr.conf"),
)
"""The part of /etc that scripts see: what programs need, and what every user may read anyway."""
PLACES = {
    **dict.fromkeys(("home", "media", "mnt", "root", "srv", "var", "var/cache", "var/lib", "var/log"), 0o755),
    **dict.fromkeys(("tmp", "run", "var/tmp"), 0o1777),
}
"""Empty directories of the script's own, with their modes."""
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
"""The devices that every system has and that reach no hardware, by name, with their numbers."""
_MKNOD = "/usr/bin/mknod"
_MKNOD_SCRIPT = """\
#!/bin/sh
# Installation scripts make no devices: this puts one of their own /dev in its place.
[ "$1" = -m ] && shift 2
case "$2 $3 $4" in
CASES  *) echo "mknod: $1: Operation not permitted" >&2; exit 1 ;;
esac
set -C
: >"$1" && exec mount --bind "/dev/$device" "$1"
"""
LINKS = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
CAPABILITIES = sum(
    1 << number
    for number in (
        *(0, 1, 2, 3, 4),  # owners and modes of files: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID
        *(5, 6, 7, 8, 31),  # processes and users: KILL, SETGID, SETUID, SETPCAP, SETFCAP
        *(10, 18, 21, 23),  # NET_BIND_SERVICE, SYS_CHROOT, SYS_ADMIN for mounts, SYS_NICE
    )
)
"""The capabilities of root that a script has, in its own namespaces."""
FIRST_USER, USERS = 0x70000000, 65536
"""The users of this machine that the users 0 to 65535 of scripts are; those of systemd's containers end below them."""

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # the same on every architecture
_CLONE, _FROM_EMPTY_PATH = 0x1, 0x4
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _IDMAP = 0x1, 0x2, 0x4, 0x8, 0x100000
_NEW_MOUNTS, _NEW_USER, _NEW_PROCESSES, _NEW_NETWORK = 0x00020000, 0x10000000, 0x20000000, 0x40000000
_NEW_HOSTNAME, _NEW_IPC = 0x04000000, 0x08000000
_MNT_DETACH = 0x2
_SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVS = 4, 22, 38
_SECCOMP_FILTER = 2
_READ_BOUND, _DROP_BOUND, _CAPABILITY_VERSION = 23, 24, 0x20080522
_SIOCSIFFLAGS, _UP = 0x8914, 0x1


class Tree:
    """A file or directory that is shown: a mount without a place, until it is attached."""

    def __init__(self, source: str, *, recursive: bool = False) -> None:
        self.is_directory = os.path.isdir(source)
        self._source = source
        self._recursive = _AT_RECURSIVE if recursive else 0
        flags = _CLONE | os.O_CLOEXEC | self._recursive
        self._descriptor = _system(source, _OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags)

    def limit(self, attributes: int, users: int = 0) -> None:
        """Set mount attributes; `users` is a descriptor of the user namespace whose users own the files."""
        values = struct.pack("=QQQQ", attributes, 0, 0, users)
        flags = _AT_EMPTY_PATH | self._recursive
        _system(self._source, _MOUNT_SETATTR, self._descriptor, b"", flags, values, len(values))

    def attach(self, target: str) -> None:
        """Mount it."""
        try:
            _system(target, _MOVE_MOUNT, self._descriptor, b"", _AT_FDCWD, os.fsencode(target), _FROM_EMPTY_PATH)
        finally:
            os.close(self._descriptor)


def open_trees(files: Iterable[str]) -> dict[str, Tree]:
    """Open what is shown read-only: programs, libraries, this Python, and further files."""
    etc = [f"/etc/{name}" for name in ETC if os.path.isdir(f"/etc/{name}")]
    shown = [path for path in TREES if not os.path.islink(path)] + etc
    shown += [path for path in (sys.base_prefix, sys.prefix) if not _below(path, shown)]
    shown += sorted(files)
    trees = {path: Tree(path, recursive=path in TREES) for path in shown if os.path.exists(path)}
    for tree in trees.values():
        tree.limit(_RDONLY | _NOSUID | _NODEV)
    return trees


def user_namespace() -> int:
    """Return a descriptor of a new user namespace; this process stays in its own."""
    ready, begun = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            confine.call("unshare", confine.libc.unshare(_NEW_USER))
            os.write(begun, b"1")
            signal.pause()
        os._exit(1)
    os.close(begun)
    try:
        if not os.read(ready, 1):
            raise OSError(errno.EPERM, "this machine allows no user namespace")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{name}", "w") as file:
                file.write(f"0 {FIRST_USER} {USERS}\n")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def build(root: str, job: dict[str, Any], trees: dict[str, Tree], users: int, tmp: str) -> None:
    """Make the new root directory, a mount at `root`, in a mount namespace of this process's own."""
    os.mkdir(root)
    confine.mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=64m,mode=755")
    for name, mode in PLACES.items():
        _directory(f"{root}/{name}", mode)
    for path in filter(os.path.islink, TREES):
        os.symlink(os.readlink(path), root + path)
    for name, options in (("tmp", tmp), ("run", "size=64m,mode=755")):
        confine.mount("tmpfs", f"{root}/{name}", "tmpfs", _NOSUID | _NODEV, options)
    _copy_etc(f"{root}/etc")
    for path, tree in trees.items():
        if path in job["files"]:
            with contextlib.suppress(OSError):  # of this file system scripts see what everyone may read
                tree.limit(_IDMAP, users)
        (_directory if tree.is_directory else _file)(root + path)
        tree.attach(root + path)
    for path in job["hidden"]:
        _hide(root, path)
    _replace_mknod(root)
    _make_devices(f"{root}/dev", [disk["device"] for disk in job["disks"] if disk["device"]])
    for kind in ("proc", "sys"):
        _directory(f"{root}/{kind}")
    confine.mount("proc", f"{root}/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    confine.mount("sysfs", f"{root}/sys", "sysfs", _RDONLY | _NOSUID | _NODEV | _NOEXEC)
    for place in ("", "tmp", "run", "dev", *PLACES):
        os.chown(f"{root}/{place}", FIRST_USER, FIRST_USER)
    _show_disks(job, root, users)


def enter(root: str) -> None:
    """Make it the root directory of this process; what is outside of it is unmounted."""
    os.chdir(root)
    confine.call("pivot_root", confine.libc.pivot_root(b".", b"."))
    confine.call("umount", confine.libc.umount2(b".", _MNT_DETACH))
    os.chdir("/tmp")  # noqa: S108


def separate(users: int, *, network: bool) -> None:
    """Become user 0 of the user namespace, with namespaces of its own; the next child is process 1 of one of them."""
    confine.call("setns", confine.libc.setns(users, _NEW_USER))
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    own = _NEW_MOUNTS | _NEW_PROCESSES | _NEW_HOSTNAME | _NEW_IPC | (0 if network else _NEW_NETWORK)
    confine.call("unshare", confine.libc.unshare(own))
    confine.call("prctl", confine.libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    confine.call("prctl", confine.libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0))  # else its /proc/self is not its own
    if not network:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP))


def limit(program: bytes) -> None:
    """Keep `CAPABILITIES` only, and let the kernel refuse system calls: for this process and all that it starts."""
    number = 0
    while confine.libc.prctl(_READ_BOUND, number, 0, 0, 0) >= 0:
        if not CAPABILITIES >> number & 1:
            confine.call("prctl", confine.libc.prctl(_DROP_BOUND, number, 0, 0, 0))
        number += 1
    low, high = CAPABILITIES & 0xFFFFFFFF, CAPABILITIES >> 32
    sets = struct.pack("6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable
    confine.call("capset", confine.libc.capset(struct.pack("Ii", _CAPABILITY_VERSION, 0), sets))
    instructions = ctypes.create_string_buffer(program, len(program))
    words = struct.pack("HP", len(program) // 8, ctypes.addressof(instructions))
    confine.call("seccomp", confine.libc.prctl(_SET_SECCOMP, _SECCOMP_FILTER, words, 0, 0))


def settle() -> None:
    """As process 1 of the new process namespace: give it its own /proc and terminals."""
    confine.mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    confine.mount("devpts", "/dev/pts", "devpts", _NOSUID | _NOEXEC, "newinstance,ptmxmode=0666,mode=0620")


def make_nodes(root: str) -> None:
    """Put devices where a script, which makes none, has put empty files for them into the VM's /dev."""
    with contextlib.suppress(OSError):  # no such directory, or a symbolic link
        place = os.open(f"{root}/dev", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for name, (major, minor) in DEVICES.items():
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=place, follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
                        os.unlink(name, dir_fd=place)
                        os.mknod(name, stat.S_IFCHR, os.makedev(major, minor), dir_fd=place)
                        os.chmod(name, 0o666, dir_fd=place)  # noqa: S103
        finally:
            os.close(place)


# The parts


def _copy_etc(etc: str) -> None:
    for name in ETC:
        source = f"/etc/{name}"
        if os.path.isfile(source):
            _directory(os.path.dirname(f"{etc}/{name}"))
            shutil.copyfile(source, f"{etc}/{name}")  # what a symbolic link leads to may not be shown
            os.chown(f"{etc}/{name}", FIRST_USER, FIRST_USER)


def _hide(root: str, path: str) -> None:
    """Cover a file, or everything in a directory, if it is shown at all."""
    target = root + path
    if os.path.isdir(target):
        confine.mount("tmpfs", target, "tmpfs", _RDONLY | _NOSUID | _NODEV, "size=4k,mode=755")
    elif os.path.exists(target):
        tree = Tree(os.devnull)
        tree.limit(_RDONLY | _NODEV)
        tree.attach(target)


def _replace_mknod(root: str) -> None:
    """Show a mknod(1) that puts the devices of the script's own /dev in their places: see `make_nodes`."""
    if os.path.isfile(f"{root}{_MKNOD}"):
        cases = "".join(f'  "c {major} {minor}") device={name} ;;\n' for name, (major, minor) in DEVICES.items())
        own = f"{root}/run/mknod"
        _file(own, _MKNOD_SCRIPT.replace("CASES", cases))
        os.chmod(own, 0o755)  # noqa: S103
        tree = Tree(own)
        tree.limit(_RDONLY | _NOSUID)
        tree.attach(f"{root}{_MKNOD}")


def _make_devices(place: str, disks: Sequence[str]) -> None:
    """Make a /dev with the harmless devices, and the VM's own disks."""
    _directory(place)
    confine.mount("tmpfs", place, "tmpfs", _NOSUID | _NOEXEC, "size=1m,mode=755")
    made = {f"{place}/{name}": (stat.S_IFCHR | 0o666, os.makedev(*numbers)) for name, numbers in DEVICES.items()}
    for disk in disks:
        made[f"{place}/{os.path.relpath(disk, '/dev')}"] = (stat.S_IFBLK | 0o660, os.stat(disk).st_rdev)
    for path, (mode, device) in made.items():
        _directory(os.path.dirname(path))
        os.mknod(path, mode, device)
        os.chown(path, FIRST_USER, FIRST_USER)
        os.chmod(path, stat.S_IMODE(mode))
    for name in ("pts", "shm"):
        _directory(f"{place}/{name}", 0o1777)
    for name, target in LINKS.items():
        os.symlink(target, f"{place}/{name}")


def _show_disks(job: dict[str, Any], root: str, users: int) -> None:
    """Show the mounted disks, with the files of the VM's users belonging to those of the script; no device works."""
    target = job["temporary_directory"]
    _directory(root + target)
    os.chown(root + target, FIRST_USER, FIRST_USER)
    paths = [disk["mountpoint"] for disk in job["disks"] if disk["mountpoint"]]
    for path in sorted(paths, key=lambda path: [part for part in path.split("/") if part]):
        if not os.path.isdir(f"{root}{target}{path}"):  # below no other disk
            _owned_directories(root + target, path)
        tree = Tree(target + path)
        tree.limit(_NODEV | _IDMAP, users)
        tree.attach(f"{root}{target}{path}")


def _owned_directories(base: str, path: str) -> None:
    for name in filter(None, path.split("/")):
        base = f"{base}/{name}"
        _directory(base)
        os.chown(base, FIRST_USER, FIRST_USER)


def _directory(path: str, mode: int = 0o755) -> None:
    if not os.path.isdir(path):
        os.makedirs(path)
        os.chmod(path, mode)


def _file(path: str, text: str = "") -> None:
    if not os.path.exists(path):
        _directory(os.path.dirname(path))
        with open(path, "x") as file:
            file.write(text)


def _below(path: str, shown: Iterable[str]) -> bool:
    return any(os.path.commonpath((path, each)) == each for each in shown)


def _system(path: str, number: int, *arguments: Any) -> int:
    """Make a system call about a path that the C library may not know."""
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = confine.libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return result
