"""The ports of the sandbox: those requested, else the usual ones or the next free ones after them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from pvcd import Conflict, Failed

USUAL = {"zookeeper": 2181, "redis": 6379, "ceph-mon": 3300, "api": 7370}
"""The port that is tried first, by server."""

_TRIES = 200


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # Servers set this too: a port with connections in TIME_WAIT is free, one with a listener is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def choose_one(name: str, requested: int | None, free: Callable[[int], bool] = is_free) -> int:
    """Choose the port of one server, as `choose` does."""
    return choose({name: requested}, free)[name]


def choose(requested: Mapping[str, int | None], free: Callable[[int], bool] = is_free) -> dict[str, int]:
    """Choose a port for each server of `USUAL`. A requested port is used or refused, never replaced."""
    ports: dict[str, int] = {}
    for name, port in requested.items():
        if port is None:
            continue
        if port in ports.values():
            raise Conflict(f"Cannot use port {port} for {name}: requested for another server too. Choose two ports.")
        if not free(port):
            raise Conflict(
                f"Cannot use port {port} for {name}: in use by another program. "
                f"Stop that program, or choose another port with --{name}-port."
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
    last = usual + _TRIES - 1
    raise Failed(f"Cannot find a port for {name}: {usual} to {last} are in use. Choose one with --{name}-port.")
