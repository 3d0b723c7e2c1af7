"""The records of networks: how they should be, written by the API, and how they are, written by nodes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from pydantic import BaseModel, ConfigDict, Field

from pvcd import MAX_DOCUMENT_BYTES, Name, Record
from pvcd_plugins.network.bridge import Address, Kind, bridge_name
from pvcd_plugins.network.dhcp import Reservation

MAX_LIST_BYTES = MAX_DOCUMENT_BYTES - 64 * 1024
"""Limit for records with a list in them, below that of the store to leave room for later fields."""


class Network(Record, path="/networks/{vni}"):
    """A network as it should be. Written by service.py only.

    Only a managed one has the optional fields: a domain, and a gateway for each of its address ranges.
    """

    vni: int
    description: Name
    kind: Kind
    domain: str | None = None
    name_servers: tuple[Address, ...] = ()
    ip4_network: IPv4Network | None = None
    ip4_gateway: IPv4Address | None = None
    ip6_network: IPv6Network | None = None
    ip6_gateway: IPv6Address | None = None
    dhcp4: bool = False
    dhcp4_start: IPv4Address | None = None
    dhcp4_end: IPv4Address | None = None
    removing: bool = False
    """Its removal has begun: it cannot be put to use any more."""

    @property
    def bridge(self) -> str:
        """The name of its bridge on every node, by which VMs refer to it."""
        return bridge_name(self.vni)

    def __str__(self) -> str:
        """Name it in a sentence."""
        return f"network {self.description!r}"


class NetworkName(Record, path="/network-names/{description}"):
    """The network with a description: written in one transaction with it, so that descriptions are unique."""

    description: Name
    vni: int


class Planned(BaseModel):
    """The addresses and the domain of a managed network, which no other one may have."""

    model_config = ConfigDict(frozen=True)

    domain: str
    ip4: IPv4Network | None = None
    ip6: IPv6Network | None = None


class Plan(Record, path="/network-plan/managed"):
    """The claims of all managed networks, by VNI: one record, so that conflicting requests cannot both succeed."""

    managed: dict[int, Planned] = Field(default_factory=dict)


class Reservations(Record, path="/network-reservations/{vni}"):
    """The static leases of a managed network, sorted by MAC; created and removed with the network."""

    vni: int
    reservations: tuple[Reservation, ...] = ()


class Acl(BaseModel):
    """One rule of the packet filter."""

    model_config = ConfigDict(frozen=True)

    description: Name
    rule: str


class Acls(Record, path="/network-acls/{vni}"):
    """The rules of a managed network in order of evaluation; created and removed with the network."""

    vni: int
    inward: tuple[Acl, ...] = ()
    """For packets to the network."""
    outward: tuple[Acl, ...] = ()
    """For packets from it."""


class Lease(Record, path="/network-leases/{vni}/{address}"):
    """A lease that a host has taken, dynamic or static; written by the primary. See dhcp.Leased."""

    vni: int
    address: Address
    mac: str | None = None
    hostname: str | None = None
    client_id: str = "*"
    iaid: int | None = None
    expires: float


class NodeNetwork(Record, path="/network-nodes/{node}"):
    """A node's report on its networks; written by that node."""

    node: Name
    address: Address | None = None
    """Where the tunnels of other nodes reach it."""
    failed: dict[int, str] = Field(default_factory=dict)
    """By VNI, why a network does not work on this node."""


class ServedNetworks(Record, path="/network-served/primary"):
    """The primary's report on gateways, DHCP and DNS; written by the primary."""

    node: Name
    failed: dict[int, str] = Field(default_factory=dict)
    """By VNI, why a network is not served."""


def has_room(record: Record) -> bool:
    """Return whether a record with a list in it is small enough to be stored."""
    return len(record.encode()) <= MAX_LIST_BYTES
