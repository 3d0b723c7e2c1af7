"""The door to the primary's name server for the domains of all networks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Protocol

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Zone:
    """The domain of one network, and the server that knows its hosts."""

    domain: str
    server: Address
    """The gateway, where the network's own server answers."""
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """The address ranges that it has names for."""


class Dns(Protocol):
    """The server; it ends when the door is closed, or with this process."""

    async def apply(self, zones: Collection[Zone]) -> None:
        """Answer for exactly these domains; raises `Failed` if the server does not run."""
