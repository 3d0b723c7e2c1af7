"""The door to this node's links: its bridges, how they are joined with those of other nodes, and gateway addresses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Protocol

Address = IPv4Address | IPv6Address
Gateway = IPv4Interface | IPv6Interface


class Kind(StrEnum):
    """How the bridges of a network are joined; the manual's `nettype`."""

    BRIDGED = "bridged"
    """By a VLAN of the site, whose tag is the network's VNI."""
    MANAGED = "managed"
    """By VXLAN tunnels between the nodes."""


@dataclass(frozen=True)
class Bridge:
    """The bridge `vmbr<vni>` as it should be."""

    vni: int
    kind: Kind


LIMITS = {Kind.BRIDGED: 4094, Kind.MANAGED: 2**24 - 1}
"""The highest VNI of each kind."""
ROUTER = IPv6Interface("fe80::1/64")
"""Is had wherever there is an IPv6 gateway: routers advertise themselves from a link's own address, which has to move
with them, or hosts would go on sending to the one that was."""


def bridge_name(vni: int) -> str:
    """The name of a network's bridge on every node."""
    return f"vmbr{vni}"


def uplink_name(bridge: Bridge) -> str:
    """The name of the link that joins a bridge with those of other nodes."""
    return f"{'vxlan' if bridge.kind is Kind.MANAGED else 'vlan'}{bridge.vni}"


def with_router(gateways: Collection[Gateway]) -> frozenset[Gateway]:
    """Gateways, and `ROUTER` where one of them is of IPv6."""
    six = any(gateway.version == 6 for gateway in gateways)
    return frozenset((*gateways, ROUTER)) if six else frozenset(gateways)


def wrong(bridge: Bridge) -> str | None:
    """What is wrong with a bridge wherever it is to be."""
    limit = LIMITS[bridge.kind]
    if 1 <= bridge.vni <= limit:
        return None
    return f"The VNI of a {bridge.kind} network is from 1 to {limit}, not {bridge.vni}."


def taken(name: str) -> str:
    """The sentence for a link that has the name of one of ours."""
    return f"There is a link {name} already that pvcd did not make: remove or rename it."


def apart(peer: Address, here: Address) -> str:
    """The sentence for a node to which no tunnel can lead."""
    return f"The node at {peer} cannot be reached by a tunnel from {here}."


def absent(vni: int) -> str:
    """The sentence for gateways of a network that has no bridge here."""
    return f"There is no bridge {bridge_name(vni)} that could have a gateway."


class Bridges(Protocol):
    """The links of one node. Only those that it made itself are ever changed or removed."""

    async def address(self) -> Address:
        """Where other nodes reach this one with their tunnels; raises `Failed` with what is missing."""

    async def apply(self, wanted: Collection[Bridge], peers: Collection[Address]) -> dict[int, str]:
        """Make these bridges what there is, whatever there was; `peers` are the other nodes' addresses.

        Returns by VNI one sentence for each bridge that could not be made, and goes on with the others.
        """

    async def mtu(self) -> int:
        """The MTU of managed networks on this node; raises `Failed` as `address` does."""

    async def hold(self, gateways: Mapping[int, Collection[Gateway]], seconds: float) -> dict[int, str]:
        """Have these addresses, by VNI, on the bridges and no others, and announce the ones that are new.

        They vanish by themselves after `seconds`, unless they are held anew: a node that cannot act keeps none.
        Where there is an IPv6 gateway there is `ROUTER` too. Addresses without an end are never ours and stay.
        Returns by VNI one sentence for each network whose addresses could not be had.
        """

    async def aclose(self) -> None:
        """Announce no more. Bridges stay, since VMs use them; addresses vanish when their time is over."""
