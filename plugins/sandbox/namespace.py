"""Run a program in a new mount and host name namespace, in which directories are bind-mounted.

    python -m pvcd_plugins.sandbox.namespace --bind SOURCE:TARGET ... [--hostname NAME] [--network] -- PROGRAM ...

The host does not see the mounts, and they end with the last process inside. The program is killed when the process
that started it ends. A missing target is created as an empty directory on the host. With --network, /sys shows the
links of the program's network namespace, instead of the one in which /sys was mounted.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUTS = 0x04000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> None:
    """Create the namespaces and execute the program."""
    options = _parser().parse_args(arguments)
    parent = os.getppid()
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
    if os.getppid() != parent:
        sys.exit("the parent process ended")
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWUTS), "unshare")
    _mount(None, "/", _MS_REC | _MS_PRIVATE)
    for pair in options.bind:
        source, _, target = pair.rpartition(":")
        if not os.path.lexists(target):
            Path(target).mkdir(parents=True)
        _mount(source, target, _MS_BIND | _MS_REC)
    if options.network:
        _mount("sysfs", "/sys", 0, "sysfs")
    if options.hostname:
        socket.sethostname(options.hostname)
    os.execvp(options.program[0], options.program)  # noqa: S606 - an argument vector, and no shell is wanted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="namespace", allow_abbrev=False)
    parser.add_argument("--bind", action="append", default=[], metavar="SOURCE:TARGET")
    parser.add_argument("--hostname")
    parser.add_argument("--network", action="store_true")
    parser.add_argument("program", nargs="+")
    return parser


def _mount(source: str | None, target: str, flags: int, kind: str | None = None) -> None:
    names = (name if name is None else os.fsencode(name) for name in (source, target, kind))
    _check(_libc.mount(*names, ctypes.c_ulong(flags), None), f"mount {source or ''} on {target}")


def _check(result: int, call: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{call}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main(sys.argv[1:])
