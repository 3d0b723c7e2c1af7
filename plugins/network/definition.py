"""From the options of a request to a network that is sound as a whole: pure rules, each refusal one sentence."""

from __future__ import annotations

from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Literal

from pvcd import Invalid
from pvcd_plugins.network import addresses
from pvcd_plugins.network.bridge import Address, Kind
from pvcd_plugins.network.params import MAX_VNI
from pvcd_plugins.network.records import Network

MAX_NAME_SERVERS = 8
Empty = Literal[""]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for: None is not given, and empty is to be taken away."""

    domain: str | None = None
    name_servers: list[Address | Empty] | None = None
    ip4_network: IPv4Network | Empty | None = None
    ip4_gateway: IPv4Address | Empty | None = None
    ip6_network: IPv6Network | Empty | None = None
    ip6_gateway: str | None = None
    dhcp4: bool | None = None
    dhcp4_start: IPv4Address | Empty | None = None
    dhcp4_end: IPv4Address | Empty | None = None

    @property
    def given(self) -> list[str]:
        """The names of what is given, as users write them."""
        names = [each.name for each in fields(self) if getattr(self, each.name) is not None]
        return ["name_server" if name == "name_servers" else name for name in names]


def define(network: Network, options: Options) -> tuple[Network, list[str]]:
    """The network with these options, and warnings; `Invalid` if it would not be sound."""
    if network.kind is Kind.BRIDGED:
        given = ", ".join(options.given)
        return network, [f"A bridged network is a VLAN and nothing else: {given} is ignored."] if given else []
    changed = network.changed(**_ip4_values(options), **_name_values(network, options))
    changed, warnings = _with_ip6(changed, options)
    _refuse_unsound_ip4(changed)
    _refuse_unsound_name_servers(changed)
    return changed, warnings


def refuse_vni(vni: int, kind: Kind) -> None:
    """Refuse what is no VNI of such a network."""
    if vni > MAX_VNI[kind]:
        raise Invalid(f"vni {vni} is not valid: that of a {kind} network is 1 to {MAX_VNI[kind]}.")


def _ip4_values(options: Options) -> dict[str, Any]:
    """What changes of IPv4; without a network there is none of the rest either, unless it is given all the same."""
    values: dict[str, Any] = {}
    if options.ip4_network == "":
        values = {"ip4_gateway": None, "dhcp4": False, "dhcp4_start": None, "dhcp4_end": None}
    for name in ("ip4_network", "ip4_gateway", "dhcp4_start", "dhcp4_end", "dhcp4"):
        value = getattr(options, name)
        if value is not None:
            values[name] = None if value == "" else value
    return values


def _name_values(network: Network, options: Options) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if options.name_servers is not None:
        values["name_servers"] = tuple(dict.fromkeys(server for server in options.name_servers if server != ""))
    if options.domain or (options.domain is None and network.domain):
        return values | {"domain": options.domain or network.domain}
    domain = f"{network.description}.local"
    try:
        return values | {"domain": addresses.read_domain(domain)}
    except ValueError as error:
        raise Invalid(f"The description makes no valid domain {domain!r}, so give one: {error}.") from None


def _with_ip6(network: Network, options: Options) -> tuple[Network, list[str]]:
    """The network with its IPv6 gateway, which has a default also in place of one that is not valid."""
    if options.ip6_network is not None:
        network = network.changed(ip6_network=options.ip6_network or None)
    net, warnings = network.ip6_network, []
    if net is None:
        if options.ip6_gateway:
            raise Invalid("ip6_gateway needs an ip6_network.")
        return network.changed(ip6_gateway=None), []
    gateway: IPv6Address | None = network.ip6_gateway
    if options.ip6_gateway is not None:
        gateway = _address_of(options.ip6_gateway, net)
        if gateway is None and options.ip6_gateway:
            warnings = [f"ip6_gateway {options.ip6_gateway[:60]!r} is no host of {net}, so {net[1]} is taken."]
    if gateway is None or addresses.not_a_host(gateway, net):
        gateway = net[1]
    return network.changed(ip6_gateway=gateway), warnings


def _address_of(text: str, network: IPv6Network) -> IPv6Address | None:
    try:
        address = addresses.read_ip6_address(text)
    except ValueError:
        return None
    return None if addresses.not_a_host(address, network) else address


def _refuse_unsound_ip4(network: Network) -> None:
    net = network.ip4_network
    hosts = {name: getattr(network, name) for name in ("ip4_gateway", "dhcp4_start", "dhcp4_end")}
    if net is None:
        for name, value in (hosts | {"dhcp4": network.dhcp4}).items():
            if value:
                raise Invalid(f"{name} needs an ip4_network.")
        return
    if network.ip4_gateway is None:
        raise Invalid(f"ip4_network needs an ip4_gateway: an address of {net} for the primary, such as {net[1]}.")
    for name, address in hosts.items():
        reason = addresses.not_a_host(address, net) if address else None
        if reason:
            raise Invalid(f"{name} {address} {reason}.")
    _refuse_unsound_range(network, network.ip4_gateway)


def _refuse_unsound_range(network: Network, gateway: IPv4Address) -> None:
    start, end = network.dhcp4_start, network.dhcp4_end
    if start is None or end is None:
        if network.dhcp4:
            raise Invalid("dhcp4 needs dhcp4_start and dhcp4_end.")
        if start or end:
            raise Invalid("dhcp4_start and dhcp4_end are given together or not at all.")
        return
    if start > end:
        raise Invalid(f"dhcp4_start {start} comes after dhcp4_end {end}.")
    if start <= gateway <= end:
        raise Invalid(f"The gateway {gateway} is between dhcp4_start {start} and dhcp4_end {end}.")


def _refuse_unsound_name_servers(network: Network) -> None:
    if len(network.name_servers) > MAX_NAME_SERVERS:
        raise Invalid(f"name_server is given {len(network.name_servers)} times; {MAX_NAME_SERVERS} are possible.")
    for server in network.name_servers:
        if server in (network.ip4_gateway, network.ip6_gateway):
            raise Invalid(f"name_server {server} is the network's own gateway, which would ask itself.")


def no_address_for_hosts(network: Network, address: IPv4Address) -> str | None:
    """Why no host of a network can be given an address, if it is so."""
    if network.ip4_network is None:
        return f"cannot be given to anybody, for network {network.description} has no IPv4"
    if address == network.ip4_gateway:
        return f"is the gateway of network {network.description}"
    return addresses.not_a_host(address, network.ip4_network)
