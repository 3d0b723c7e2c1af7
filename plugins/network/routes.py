"""The manual's chapter: network endpoints. The paths `lease` and `dhcp` are the same."""

from __future__ import annotations

from pvcd import Context, Message, Routes
from pvcd_plugins.network import params, service
from pvcd_plugins.network.rules import acls, reservations
from pvcd_plugins.network.rules.definition import Options
from pvcd_plugins.network.views import AclView, LeaseView, NetworkList

routes = Routes("/api/v1/network", tag="Networks")


@routes.get()
async def list_networks(context: Context, limit: params.NetworkLimit = None) -> NetworkList:
    """List the networks whose description or VNI matches `limit`, sorted by description."""
    return service.list_networks(context, limit)


@routes.post(operation="network-create")
async def create(
    context: Context,
    vni: params.Vni,
    description: params.Description,
    nettype: params.NetworkKind,
    domain: params.Domain = None,
    name_servers: params.NameServers = None,
    ip4_network: params.Ip4Network = None,
    ip4_gateway: params.Ip4Gateway = None,
    ip6_network: params.Ip6Network = None,
    ip6_gateway: params.Ip6Gateway = None,
    dhcp4: params.Dhcp4 = None,
    dhcp4_start: params.Dhcp4Start = None,
    dhcp4_end: params.Dhcp4End = None,
) -> Message:
    """Create a network. All optional values are ignored for a bridged one, which is only a VLAN."""
    options = Options(
        domain=domain,
        name_servers=name_servers,
        ip4_network=ip4_network,
        ip4_gateway=ip4_gateway,
        ip6_network=ip6_network,
        ip6_gateway=ip6_gateway,
        dhcp4=dhcp4,
        dhcp4_start=dhcp4_start,
        dhcp4_end=dhcp4_end,
    )
    return await service.create(context, vni, description, nettype, options)


@routes.get("/{network}")
async def get_network(context: Context, network: params.NetworkKey) -> NetworkList:
    """Return one network by VNI or description, as a list of one."""
    return service.get_network(context, network)


@routes.put("/{network}", operation="network-modify")
async def modify(
    context: Context,
    network: params.NetworkKey,
    description: params.Description | None = None,
    domain: params.Domain = None,
    name_servers: params.NameServers = None,
    ip4_network: params.Ip4Network = None,
    ip4_gateway: params.Ip4Gateway = None,
    ip6_network: params.Ip6Network = None,
    ip6_gateway: params.Ip6Gateway = None,
    dhcp4: params.Dhcp4 = None,
    dhcp4_start: params.Dhcp4Start = None,
    dhcp4_end: params.Dhcp4End = None,
) -> Message:
    """Change a network. Values that are not given stay; an empty value removes the current one."""
    options = Options(
        domain=domain,
        name_servers=name_servers,
        ip4_network=ip4_network,
        ip4_gateway=ip4_gateway,
        ip6_network=ip6_network,
        ip6_gateway=ip6_gateway,
        dhcp4=dhcp4,
        dhcp4_start=dhcp4_start,
        dhcp4_end=dhcp4_end,
    )
    return await service.modify(context, network, description, options)


@routes.delete("/{network}", operation="network-remove")
async def remove(context: Context, network: params.NetworkKey) -> Message:
    """Remove a network that no VM uses, with its leases and ACLs."""
    return await service.remove(context, network)


@routes.get("/{network}/lease")
@routes.get("/{network}/dhcp")
async def list_leases(
    context: Context, network: params.NetworkKey, limit: params.LeaseLimit = None, static: params.Static = False
) -> list[LeaseView]:
    """List the active and static leases of a network that satisfy every filter, sorted by MAC address."""
    return reservations.list_leases(context, network, limit, static)


@routes.post("/{network}/lease", operation="network-lease-add")
@routes.post("/{network}/dhcp", operation="network-lease-add")
async def add_lease(
    context: Context,
    network: params.NetworkKey,
    macaddress: params.MacAddress,
    ipaddress: params.IpAddress,
    hostname: params.Hostname = None,
) -> Message:
    """Add a static lease: the host with this MAC address always gets this IP address."""
    return await reservations.add_lease(context, network, macaddress, ipaddress, hostname)


@routes.get("/{network}/lease/{lease}")
@routes.get("/{network}/dhcp/{lease}")
async def get_lease(context: Context, network: params.NetworkKey, lease: params.LeaseKey) -> list[LeaseView]:
    """Return the leases of one host; a host with IPv4 and IPv6 has more than one."""
    return reservations.get_lease(context, network, lease)


@routes.delete("/{network}/lease/{lease}", operation="network-lease-remove")
@routes.delete("/{network}/dhcp/{lease}", operation="network-lease-remove")
async def remove_lease(context: Context, network: params.NetworkKey, lease: params.LeaseKey) -> Message:
    """Remove a static lease."""
    return await reservations.remove_lease(context, network, lease)


@routes.get("/{network}/acl")
async def list_acls(
    context: Context,
    network: params.NetworkKey,
    limit: params.AclLimit = None,
    direction: params.Direction | None = None,
) -> list[AclView]:
    """List the ACLs of a network that satisfy every filter, `in` before `out`, in order of evaluation."""
    return acls.list_acls(context, network, limit, direction)


@routes.post("/{network}/acl", operation="network-acl-add")
async def add_acl(
    context: Context,
    network: params.NetworkKey,
    description: params.AclDescription,
    direction: params.Direction,
    rule: params.Rule,
    order: params.Order = None,
) -> Message:
    """Add a rule to the packet filter of a network; the rules from its place on move down by one."""
    return await acls.add_acl(context, network, description, direction, rule, order)


@routes.get("/{network}/acl/{acl}")
async def get_acl(context: Context, network: params.NetworkKey, acl: params.AclKey) -> list[AclView]:
    """Return the ACLs of this description, at most one for each direction; without any the list is empty."""
    return acls.get_acl(context, network, acl)


@routes.delete("/{network}/acl/{acl}", operation="network-acl-remove")
async def remove_acl(
    context: Context, network: params.NetworkKey, acl: params.AclKey, direction: params.Direction
) -> Message:
    """Remove a rule; those after it move up by one."""
    return await acls.remove_acl(context, network, acl, direction)
