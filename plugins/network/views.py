"""Networks, leases and ACLs as the API shows them; missing values are null."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Literal

from pydantic import BaseModel

from pvcd import Component, ComponentKey, Context, Encoded, Record, Role, Store, View
from pvcd_plugins.network.bridge import Kind
from pvcd_plugins.network.records import Network, NodeNetwork, ServedNetworks


class Ip4View(BaseModel):
    """IPv4 of a network; with `dhcp_flag` its hosts get addresses by DHCP."""

    network: IPv4Network | None
    gateway: IPv4Address | None
    dhcp_flag: bool
    dhcp_start: IPv4Address | None
    dhcp_end: IPv4Address | None


class Ip6View(BaseModel):
    """IPv6 of a network; with `dhcp_flag` it is announced to its hosts."""

    network: IPv6Network | None
    gateway: IPv6Address | None
    dhcp_flag: bool


class NetworkView(BaseModel):
    """A network."""

    vni: int
    description: str
    type: Kind
    domain: str | None
    name_servers: list[IPv4Address | IPv6Address]
    ip4: Ip4View
    ip6: Ip6View
    removing: bool
    """True once its removal has begun."""

    failed: dict[str, str]
    """By node, why the network does not work there."""


class LeaseView(BaseModel):
    """An address of a host; `timestamp` is when the lease ends (seconds since 1970), or `static`."""

    hostname: str | None
    ip4_address: IPv4Address | None
    ip6_address: IPv6Address | None
    mac_address: str | None
    timestamp: str


class AclView(BaseModel):
    """A rule; `order` is its place in its direction, from 0."""

    direction: Literal["in", "out"]
    order: int
    description: str
    rule: str


NetworkList = Encoded[list[NetworkView]]
"""Encoded networks."""


def render(store: Store, network: Network) -> NetworkView:
    """Show a network, with the reports of the nodes."""
    return NetworkView(
        vni=network.vni,
        description=network.description,
        type=network.kind,
        domain=network.domain,
        name_servers=list(network.name_servers),
        ip4=Ip4View(
            network=network.ip4_network,
            gateway=network.ip4_gateway,
            dhcp_flag=network.dhcp4,
            dhcp_start=network.dhcp4_start,
            dhcp_end=network.dhcp4_end,
        ),
        ip6=Ip6View(
            network=network.ip6_network, gateway=network.ip6_gateway, dhcp_flag=network.ip6_network is not None
        ),
        removing=network.removing,
        failed=_failures(store, network.vni),
    )


def _failures(store: Store, vni: int) -> dict[str, str]:
    """Collect the failures of a network by node, from the reports of all nodes and of the primary."""
    failures: dict[str, str] = {}
    reports: list[NodeNetwork | ServedNetworks] = [*store.all(NodeNetwork), *store.all(ServedNetworks)]
    for report in reports:
        if vni in report.failed:
            failures[report.node] = " ".join(filter(None, (failures.get(report.node), report.failed[vni])))
    return failures


class NetworkViews(View[Network, NetworkView]):
    """All networks, encoded; unlike other views they depend also on the reports of all nodes."""

    def _changed(self, path: str, old: Record | None, new: Record | None) -> None:
        for vni, _ in _failed(old).items() ^ _failed(new).items():
            super()._changed(Network.at(vni), None, None)
        super()._changed(path, old, new)


def _failed(record: Record | None) -> dict[int, str]:
    return record.failed if isinstance(record, NodeNetwork | ServedNetworks) else {}


@contextlib.asynccontextmanager
async def open_networks(context: Context) -> AsyncIterator[NetworkViews]:
    """Open the view of all networks, sorted by description."""
    store = context.store
    view = NetworkViews(
        store, Network, lambda each: render(store, each), lambda each: (each.description, str(each.vni))
    )
    try:
        yield view
    finally:
        view.close()


NETWORKS: ComponentKey[NetworkViews] = ComponentKey("networks")
COMPONENTS: list[Component[Any]] = [Component(NETWORKS, open_networks, roles=(Role.API,), in_memory=True)]
