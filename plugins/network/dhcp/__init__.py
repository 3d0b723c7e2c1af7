"""The door to DHCP, router advertisements and the names of one network's hosts, as the primary serves them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface
from typing import Protocol

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Reservation:
    """An address that a host always gets."""

    mac: str
    """`52:54:00:3c:81:a0`, in small letters."""
    address: IPv4Address
    hostname: str | None = None


@dataclass(frozen=True)
class Served:
    """A managed network as its hosts are to see it."""

    vni: int
    domain: str
    mtu: int
    ip4: IPv4Interface | None = None
    """The gateway with its network's length."""
    ip6: IPv6Interface | None = None
    """The same; where it is given there are router advertisements, and DHCPv6: for options only where there is IPv4
    too, else also for addresses."""
    dhcp4: tuple[IPv4Address, IPv4Address] | None = None
    """First and last address of the pool; without it there is no DHCPv4."""
    reservations: tuple[Reservation, ...] = ()
    name_servers: tuple[Address, ...] = ()
    """Who is asked for names of other domains; nobody if there is none."""

    @property
    def network4(self) -> IPv4Network | None:
        """The IPv4 network."""
        return self.ip4.network if self.ip4 else None


@dataclass(frozen=True)
class Leased:
    """A lease that a host has taken."""

    address: Address
    mac: str | None
    """Of DHCPv6 it may be unknown."""
    client_id: str
    """As dnsmasq writes it: the client's identifier, or its DUID; `*` when there is none."""
    hostname: str | None
    expires: float
    """Seconds since 1970."""
    iaid: int | None = None
    """Of DHCPv6."""


class Leases(Protocol):
    """Where leases are remembered, so that they follow the primary: given to the door by whoever opens it."""

    async def known(self, vni: int) -> Sequence[Leased]:
        """All that hold in a network."""

    async def taken(self, vni: int, lease: Leased) -> None:
        """One was taken or renewed."""

    async def ended(self, vni: int, address: Address) -> None:
        """One was given back or has expired."""


class Dhcp(Protocol):
    """The servers of all managed networks. They end when the door is closed, or with this process."""

    async def apply(self, wanted: Collection[Served]) -> dict[int, str]:
        """Serve these networks and no others; what did not change goes on undisturbed, what ended is started again.

        Returns by VNI one sentence for each network that could not be served.
        """
