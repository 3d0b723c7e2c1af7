"""The ports of the sandbox: as asked for, otherwise the usual ones or the next free ones after them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from pvcd import Conflict, Failed

USUAL = {"zookeeper": 2181, "redis": 6379, "ceph-mon": 3300, "api": 7370}
"""The server's name and the port that is tried first."""

_TRIES = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # As servers do: a port with connections in TIME_WAIT is free, one with a listener is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def choose_one(name: str, asked: int | None, free: Callable[[int], bool] = is_free) -> int:
    """The port of one server, as `choose` would choose it."""
    return choose({name: asked}, free)[name]


def choose(asked: Mapping[str, int | None], free: Callable[[int], bool] = is_free) -> dict[str, int]:
    """A port for each server of `USUAL`. One that was asked for is taken or refused, never replaced."""
    ports: dict[str, int] = {}
    for name, port in asked.items():
        if port is None:
            continue
        if port in ports.values():
            raise Conflict(f"Port {port} was asked for twice: give each server a port of its own.")
        if not free(port):
            raise Conflict(
                f"Port {port}, asked for {name}, is in use by another program: "
                f"stop that one or choose another with --{name}-port."
            )
        ports[name] = port
    for name, usual in USUAL.items():
        if name not in ports:
            ports[name] = _next_free(name, usual, set(ports.values()), free)
    return ports


def _next_free(name: str, usual: int, taken: set[int], free: Callable[[int], bool]) -> int:
    for port in range(usual, usual + _TRIES):
        if port not in taken and free(port):
            return port
    raise Failed(f"None of the ports {usual} to {usual + _TRIES - 1} is free: choose one with --{name}-port.")
