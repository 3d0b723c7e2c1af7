"""What the cluster remembers of networks: what should be, as the API writes it, and what is, as nodes do."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from pydantic import BaseModel, ConfigDict, Field

from pvcd import MAX_DOCUMENT_BYTES, Name, Record
from pvcd_plugins.network.bridge import Address, Kind, bridge_name
from pvcd_plugins.network.dhcp import Reservation

ROOM = MAX_DOCUMENT_BYTES - 64 * 1024
"""Bytes that a record with a list in it may grow to: less than the store takes, for fields that come later."""


class Network(Record, path="/networks/{vni}"):
    """A network as it should be. Written by the rules in service.py only.

    A bridged one has nothing but its kind; a managed one has a domain, and a gateway for each of its address ranges.
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
    """Nobody may begin to use it, and it goes as soon as nobody does."""

    @property
    def bridge(self) -> str:
        """The name of its bridge on every node, by which VMs name it."""
        return bridge_name(self.vni)


class NetworkName(Record, path="/network-names/{description}"):
    """Which network has a description: made in one transaction with the network, so that no two have the same."""

    description: Name
    vni: int


class Planned(BaseModel):
    """What a managed network has for itself alone."""

    model_config = ConfigDict(frozen=True)

    domain: str
    ip4: IPv4Network | None = None
    ip6: IPv6Network | None = None


class Plan(Record, path="/network-plan/managed"):
    """What is taken, by VNI: one record, so that of two networks that take the same at once one comes second."""

    managed: dict[int, Planned] = Field(default_factory=dict)


class Reservations(Record, path="/network-reservations/{vni}"):
    """The addresses that hosts of a managed network always get, sorted by MAC; made and removed with the network."""

    vni: int
    reservations: tuple[Reservation, ...] = ()


class Acl(BaseModel):
    """One rule of the packet filter."""

    model_config = ConfigDict(frozen=True)

    description: Name
    rule: str


class Acls(Record, path="/network-acls/{vni}"):
    """The rules of a managed network in the order in which they are asked; made and removed with the network."""

    vni: int
    inward: tuple[Acl, ...] = ()
    """For what goes to the network."""
    outward: tuple[Acl, ...] = ()
    """For what comes from it."""


class Lease(Record, path="/network-leases/{vni}/{address}"):
    """A lease that a host has taken, static ones too; only the primary writes it. See dhcp.Leased."""

    vni: int
    address: Address
    mac: str | None = None
    hostname: str | None = None
    client_id: str = "*"
    iaid: int | None = None
    expires: float


class NodeNetwork(Record, path="/network-nodes/{node}"):
    """What a node says of its networks; only that node writes it."""

    node: Name
    address: Address | None = None
    """Where other nodes reach it with their tunnels."""
    failed: dict[int, str] = Field(default_factory=dict)
    """By VNI why a network is not as it should be on this node."""


class ServedNetworks(Record, path="/network-served/primary"):
    """What the primary says of the networks that it holds the gateways of; only the primary writes it."""

    node: Name
    failed: dict[int, str] = Field(default_factory=dict)
    """By VNI why the hosts of a network are not served as they should be."""


def has_room(record: Record) -> bool:
    """Whether a record with a list in it may be as large as this one."""
    return len(record.encode()) <= ROOM
