"""The door to this node's links: its bridges, their links to those of other nodes, and gateway addresses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Protocol

Address = IPv4Address | IPv6Address
Gateway = IPv4Interface | IPv6Interface


class Kind(StrEnum):
    """How the bridges of a network are connected across nodes; the manual's `nettype`."""

    BRIDGED = "bridged"
    """By a VLAN of the site; the VNI is its tag."""
    MANAGED = "managed"
    """By VXLAN tunnels between the nodes."""


@dataclass(frozen=True)
class Bridge:
    """The bridge `vmbr<vni>` as it should be."""

    vni: int
    kind: Kind


MAX_VNI = {Kind.BRIDGED: 4094, Kind.MANAGED: 2**24 - 1}
"""VLAN tags have 12 bits, of which two values are reserved; VXLAN ids have 24."""
ROUTER = IPv6Interface("fe80::1/64")
"""Held with every IPv6 gateway. Hosts send to the link-local address that advertised the router, so it must move along
with the gateway."""


def bridge_name(vni: int) -> str:
    """Name a network's bridge, the same on every node."""
    return f"vmbr{vni}"


def uplink_name(bridge: Bridge) -> str:
    """Name the link that connects a bridge with those of other nodes."""
    return f"{'vxlan' if bridge.kind is Kind.MANAGED else 'vlan'}{bridge.vni}"


def with_router(gateways: Collection[Gateway]) -> frozenset[Gateway]:
    """Add `ROUTER` to gateways if one of them is IPv6."""
    six = any(gateway.version == 6 for gateway in gateways)
    return frozenset((*gateways, ROUTER)) if six else frozenset(gateways)


def wrong(vni: int, kind: Kind) -> str | None:
    """The sentence for a VNI that no network of this kind can have."""
    if 1 <= vni <= MAX_VNI[kind]:
        return None
    return f"vni of a {kind} network must be from 1 to {MAX_VNI[kind]}; got {vni}."


def taken(name: str) -> str:
    """The sentence for a foreign link that has the name of one of ours."""
    return f"Cannot create link {name!r}: one that pvcd did not create has this name. Remove or rename it."


def unreachable(device: str) -> str:
    """The sentence for a link that cannot carry tunnels."""
    return f"Cannot create tunnels over link {device!r}: it has no address that other nodes can reach."


def apart(peer: Address, here: Address) -> str:
    """The sentence for a node whose address has the other version of IP."""
    return f"Cannot create a tunnel from {here} to {peer}: one is IPv4 and the other IPv6."


def absent(vni: int) -> str:
    """The sentence for a gateway of a network without a bridge here."""
    return f"Cannot set the gateway of bridge {bridge_name(vni)!r}: there is no such bridge."


class Bridges(Protocol):
    """The links of one node. Links that pvcd did not create are never changed or removed."""

    async def address(self) -> Address:
        """Return where the tunnels of other nodes reach this one; raises `Failed` if there is no such address."""

    async def apply(self, wanted: Collection[Bridge], peers: Collection[Address]) -> dict[int, str]:
        """Have exactly these bridges, with tunnels to `peers`, the addresses of the other nodes.

        Returns one sentence by VNI for each bridge that could not be created; the others are.
        """

    async def mtu(self) -> int:
        """Return the MTU of managed networks on this node; raises `Failed` as `address` does."""

    async def hold(self, gateways: Mapping[int, Collection[Gateway]], seconds: float) -> dict[int, str]:
        """Have exactly these addresses, by VNI, on the bridges, and announce the new ones.

        They expire after `seconds` unless held again, so that a node that hangs loses them. `ROUTER` is added to
        every IPv6 gateway. Permanent addresses are not ours and stay.
        Returns one sentence by VNI for each network whose addresses could not be set.
        """

    async def aclose(self) -> None:
        """Stop announcing. Bridges stay for the VMs that use them; gateway addresses expire."""
