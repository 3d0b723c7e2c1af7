"""A network namespace of one's own: bridges, addresses and packet filters made in it are no concern of the host.

It is gone with the last process in it, and everything in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator

from pvcd import Conflict, Failed
from pvcd_plugins.sandbox.packages import PATH

LOOPBACK = "127.0.0.1"
_OUTSIDE = "PVCD_OUTSIDE_NETWORK"
_CLONE_NEWNET = 0x40000000
_LIMIT = 10.0
_BACKLOG = 128

_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> None:
    """Move into a new one, in which there is only loopback. For the main thread of a process that has no others yet."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    if _libc.unshare(_CLONE_NEWNET) != 0:
        raise Failed(f"There can be no network namespace of our own: {os.strerror(ctypes.get_errno())}.")
    # From a namespace within another one, the way out leads out of both.
    os.environ.setdefault(_OUTSIDE, f"/proc/{os.getpid()}/fd/{before}")
    command = ("ip", "link", "set", "lo", "up")
    subprocess.run(command, check=True, timeout=_LIMIT, env={**os.environ, "PATH": PATH})


def join(pid: int) -> None:
    """Move into that of a process."""
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Be in a new one in this block, and afterwards again where one was."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter()
        yield
    finally:
        _set(before)
        os.close(before)


def _set(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise Failed(f"The network namespace cannot be entered: {os.strerror(ctypes.get_errno())}.")


def outside() -> tuple[str, ...]:
    """What to put before a command that needs the network from which `enter` has moved away."""
    return ("nsenter", f"--net={os.environ[_OUTSIDE]}", "--") if _OUTSIDE in os.environ else ()


def listen(port: int) -> socket.socket:
    """A socket of this network that processes in another one can serve."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Conflict(f"Port {port} is in use by another program: choose another with --api-port.") from error
    return listener
