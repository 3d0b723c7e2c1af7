"""A network namespace, so that the sandbox's bridges, addresses and packet filters do not affect the host.

It ends with the last process in it, together with everything in it.
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
_TIMEOUT_SECONDS = 10.0
_BACKLOG = 128

_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> None:
    """Move this process into a new namespace that has only loopback; call it before any other thread is started."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    if _libc.unshare(_CLONE_NEWNET) != 0:
        raise Failed(f"Cannot create a network namespace: {os.strerror(ctypes.get_errno())}.")
    # From a namespace within another one, `outside` leads out of both.
    os.environ.setdefault(_OUTSIDE, f"/proc/{os.getpid()}/fd/{before}")
    command = ("ip", "link", "set", "lo", "up")
    subprocess.run(command, check=True, timeout=_TIMEOUT_SECONDS, env={**os.environ, "PATH": PATH})


def join(pid: int) -> None:
    """Move into the network namespace of a process."""
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Run a block in a new network namespace, and return to the previous one."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter()
        yield
    finally:
        _set(before)
        os.close(before)


def _set(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise Failed(f"Cannot enter the network namespace: {os.strerror(ctypes.get_errno())}.")


def outside() -> tuple[str, ...]:
    """Return the words that, put before a command, run it in the network that `enter` has left."""
    return ("nsenter", f"--net={os.environ[_OUTSIDE]}", "--") if _OUTSIDE in os.environ else ()


def listen(port: int) -> socket.socket:
    """Return a socket that listens in this network and can be served from another network namespace."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Conflict(
            f"Cannot use port {port} for api: in use by another program. Choose another port with --api-port."
        ) from error
    return listener
