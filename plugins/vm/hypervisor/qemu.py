"""The processes of guests, which are found by the UUID on their command line."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from uuid import UUID

PROC = Path("/proc")


def kill_qemu(uuid: UUID) -> None:
    """Kill a guest's QEMU, if there is one in this network namespace, in which all guests of a node are."""
    here, mark = os.stat(PROC / "self/ns/net"), b"\0-uuid\0" + str(uuid).encode() + b"\0"
    for pid in (int(name) for name in os.listdir(PROC) if name.isdecimal()):
        with contextlib.suppress(OSError):  # it has ended
            process = os.pidfd_open(pid)  # before the look, so that the signal reaches what was looked at
            try:
                command = (PROC / str(pid) / "cmdline").read_bytes()
                if mark in command and os.path.samestat(os.stat(PROC / str(pid) / "ns/net"), here):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
            finally:
                os.close(process)
