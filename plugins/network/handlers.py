"""Handlers: bridges and packet filters on each node; gateways, DHCP and DNS on the primary.

After any change everything is derived anew from all records, and the doors apply the differences.
"""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface

from pvcd import Context, Failed, Handlers, Presence, Primary, Record, Requeue
from pvcd_plugins.network.bridge import Address, Bridge, Gateway, Kind
from pvcd_plugins.network.components import BRIDGES, DHCP, DNS, FIREWALL, GATEWAYS
from pvcd_plugins.network.dhcp import Served
from pvcd_plugins.network.dns import Zone
from pvcd_plugins.network.firewall import Filter
from pvcd_plugins.network.records import Acls, Network, NodeNetwork, Reservations, ServedNetworks
from pvcd_plugins.network.rules import leases
from pvcd_plugins.network.settings import NetworkSettings

DNS_PORT = 53
handlers = Handlers()
primary = Handlers(scope="primary")


@handlers.on(Presence)
async def follow(context: Context, presence: Presence) -> None:
    """Make this node's bridges and packet filter match the records."""
    if presence.node != context.node:
        return
    store, bridges = context.store, context[BRIDGES]
    networks, failed = store.all(Network), {}
    address = None
    try:
        address = await bridges.address()
    except Failed as error:
        failed = {network.vni: error.sentence for network in networks if network.kind is Kind.MANAGED}
    wanted = [Bridge(network.vni, network.kind) for network in networks if network.vni not in failed]
    peers = [each.address for each in store.all(NodeNetwork) if each.node != context.node and each.address]
    failed |= await bridges.apply(wanted, peers)
    await context[FIREWALL].apply([_filter(acls) for acls in store.all(Acls)])
    await context.store.upsert(NodeNetwork, context.node, address=address, failed=failed)


async def look_again(context: Context, record: Record) -> None:
    """Apply a change that affects this node's links or filter."""
    presence = context.store.get(Presence, context.node)
    if presence:
        context.wake(presence)


@primary.on(Primary)
async def serve(context: Context, lease: Primary) -> Requeue:
    """Hold the gateways, and serve the hosts of all managed networks.

    The gateways expire with the ZooKeeper session unless they are renewed, because another node may then be primary.
    """
    networks = [network for network in context.store.all(Network) if network.kind is Kind.MANAGED]
    seconds = context.settings.zookeeper.session_timeout
    mtu = await context[BRIDGES].mtu()
    name_servers = await _name_servers(context)
    gateways = {network.vni: gateways_of(network) for network in networks if gateways_of(network)}
    failed = await context[GATEWAYS].hold(gateways, seconds)
    served = [_served(context, network, mtu, name_servers) for network in networks if network.vni in gateways]
    failed |= await context[DHCP].apply([each for each in served if each.vni not in failed])
    await context[DNS].apply([_zone(each) for each in served if each.vni not in failed])
    await leases.remove_stale(context)
    await context.store.upsert(ServedNetworks, node=context.node, failed=failed)
    return Requeue(seconds / 3)


async def serve_again(context: Context, record: Record) -> None:
    """Apply a change that affects the hosts of a network."""
    lease = context.store.get(Primary)
    if lease:
        context.wake(lease)


def gateways_of(network: Network) -> list[Gateway]:
    """Return the addresses of the primary in a network."""
    found: list[Gateway] = []
    if network.ip4_network and network.ip4_gateway:
        found.append(IPv4Interface((network.ip4_gateway, network.ip4_network.prefixlen)))
    if network.ip6_network and network.ip6_gateway:
        found.append(IPv6Interface((network.ip6_gateway, network.ip6_network.prefixlen)))
    return found


def _filter(acls: Acls) -> Filter:
    return Filter(acls.vni, tuple(acl.rule for acl in acls.inward), tuple(acl.rule for acl in acls.outward))


async def _name_servers(context: Context) -> tuple[Address, ...]:
    """Return the default name servers of a network: the one for all networks, which forwards other names."""
    settings = context.settings.of(NetworkSettings)
    addresses = settings.dns_addresses or (await context[BRIDGES].address(),)
    return addresses if settings.dns_port == DNS_PORT else ()


def _served(context: Context, network: Network, mtu: int, name_servers: tuple[Address, ...]) -> Served:
    addresses = gateways_of(network)
    reserved = context.store.get(Reservations, network.vni)
    pool = (network.dhcp4_start, network.dhcp4_end)
    return Served(
        vni=network.vni,
        domain=network.domain or "",
        mtu=mtu,
        ip4=next((each for each in addresses if isinstance(each, IPv4Interface)), None),
        ip6=next((each for each in addresses if isinstance(each, IPv6Interface)), None),
        dhcp4=(pool[0], pool[1]) if network.dhcp4 and pool[0] and pool[1] else None,
        reservations=reserved.reservations if reserved else (),
        name_servers=network.name_servers or name_servers,
    )


def _zone(served: Served) -> Zone:
    gateways = [each for each in (served.ip4, served.ip6) if each]
    return Zone(served.domain, gateways[0].ip, tuple(each.network for each in gateways))


_FOR_NODES: tuple[type[Record], ...] = (Network, Acls, NodeNetwork)
for _kind in _FOR_NODES:
    handlers.on(_kind)(look_again)
    handlers.gone(_kind)(look_again)
_FOR_HOSTS: tuple[type[Record], ...] = (Network, Reservations)
for _kind in _FOR_HOSTS:
    primary.on(_kind)(serve_again)
    primary.gone(_kind)(serve_again)
