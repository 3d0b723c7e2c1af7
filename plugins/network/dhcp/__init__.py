"""The door to DHCP, router advertisements and host names of each network, which the primary serves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface
from typing import Protocol

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Reservation:
    """A static lease: an address that a host always gets."""

    mac: str
    """`52:54:00:3c:81:a0`, in lower case."""
    address: IPv4Address
    hostname: str | None = None


@dataclass(frozen=True)
class Served:
    """A managed network as its hosts should see it."""

    vni: int
    domain: str
    mtu: int
    ip4: IPv4Interface | None = None
    """The gateway with the prefix length of its network."""
    ip6: IPv6Interface | None = None
    """The same. It turns on router advertisements and DHCPv6, which gives options only if there is `ip4`, else also
    addresses."""
    dhcp4: tuple[IPv4Address, IPv4Address] | None = None
    """First and last address of the pool; without it there is no DHCPv4."""
    reservations: tuple[Reservation, ...] = ()
    name_servers: tuple[Address, ...] = ()
    """Where names of other domains are looked up; without any they are unknown."""

    @property
    def network4(self) -> IPv4Network | None:
        """The IPv4 network."""
        return self.ip4.network if self.ip4 else None


@dataclass(frozen=True)
class Leased:
    """A lease that a host has taken."""

    address: Address
    mac: str | None
    """May be unknown with DHCPv6."""
    client_id: str
    """As dnsmasq writes it: the client's identifier, or its DUID; `*` without one."""
    hostname: str | None
    expires: float
    """Seconds since 1970."""
    iaid: int | None = None
    """DHCPv6 only."""


class Leases(Protocol):
    """The lease store, shared by all nodes so that leases follow the primary."""

    async def known(self, vni: int) -> Sequence[Leased]:
        """Return the unexpired leases of a network."""

    async def taken(self, vni: int, lease: Leased) -> None:
        """Store a lease that was taken or renewed."""

    async def ended(self, vni: int, address: Address) -> None:
        """Remove a lease that was given back or has expired."""


class Dhcp(Protocol):
    """The servers of all managed networks. They end when the door is closed, or with this process."""

    async def apply(self, wanted: Collection[Served]) -> dict[int, str]:
        """Serve exactly these networks. Unchanged servers run on undisturbed; ended ones are started again.

        Returns one sentence by VNI for each network that is not served.
        """
