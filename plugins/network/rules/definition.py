"""Applies the options of a request to a network, and checks the result as a whole. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Literal

from pvcd import Invalid, wrong_value
from pvcd_plugins.network.bridge import Address, Kind
from pvcd_plugins.network.records import Network
from pvcd_plugins.network.rules import addresses

MAX_NAME_SERVERS = 8
Empty = Literal[""]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a request: None if not given, empty to remove the current value."""

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
        """The names of the given options, as users write them."""
        names = [each.name for each in fields(self) if getattr(self, each.name) is not None]
        return ["name_server" if name == "name_servers" else name for name in names]


def define(network: Network, options: Options) -> tuple[Network, list[str]]:
    """Return the network with these options, and warnings; raises `Invalid` if they do not fit together."""
    if network.kind is Kind.BRIDGED:
        given = ", ".join(options.given)
        return network, [f"Ignored, because a bridged network is only a VLAN: {given}."] if given else []
    changed = network.changed(**_ip4_values(options), **_name_values(network, options))
    changed, warnings = _with_ip6(changed, options)
    _refuse_unsound_ip4(changed)
    _refuse_unsound_name_servers(changed)
    return changed, warnings


def _ip4_values(options: Options) -> dict[str, Any]:
    """Return the changed IPv4 values. Removing the network removes the others too, unless they are given."""
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
        raise Invalid(f"domain must be given, because the default {domain!r} is not valid: it {error}.") from None


def _with_ip6(network: Network, options: Options) -> tuple[Network, list[str]]:
    """Set the IPv6 network and gateway; a missing or invalid gateway becomes the default, with a warning."""
    if options.ip6_network is not None:
        network = network.changed(ip6_network=options.ip6_network or None)
    net, warnings = network.ip6_network, []
    if net is None:
        if options.ip6_gateway:
            raise Invalid("ip6_gateway requires ip6_network.")
        return network.changed(ip6_gateway=None), []
    gateway: IPv6Address | None = network.ip6_gateway
    if options.ip6_gateway is not None:
        gateway = _address_of(options.ip6_gateway, net)
        if gateway is None and options.ip6_gateway:
            warnings = [f"ip6_gateway set to {net[1]}: {options.ip6_gateway[:60]!r} is not a host address in {net}."]
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
                raise Invalid(f"{name} requires ip4_network.")
        return
    if network.ip4_gateway is None:
        raise Invalid(f"ip4_network requires ip4_gateway: an address in {net} for the primary, such as {net[1]}.")
    for name, address in hosts.items():
        reason = addresses.not_a_host(address, net) if address else None
        if reason:
            raise Invalid(wrong_value(name, str(address), reason))
    _refuse_unsound_range(network, network.ip4_gateway)


def _refuse_unsound_range(network: Network, gateway: IPv4Address) -> None:
    start, end = network.dhcp4_start, network.dhcp4_end
    if start is None or end is None:
        if network.dhcp4:
            raise Invalid("dhcp4 requires dhcp4_start and dhcp4_end.")
        if start or end:
            given, missing = ("dhcp4_start", "dhcp4_end") if start else ("dhcp4_end", "dhcp4_start")
            raise Invalid(f"{given} requires {missing}.")
        return
    if start > end:
        raise Invalid(f"dhcp4_start must not be after dhcp4_end {end}; got {start}.")
    if start <= gateway <= end:
        raise Invalid(f"ip4_gateway must be outside the DHCP range {start} to {end}; got {gateway}.")


def _refuse_unsound_name_servers(network: Network) -> None:
    if len(network.name_servers) > MAX_NAME_SERVERS:
        raise Invalid(f"name_server must be given at most {MAX_NAME_SERVERS} times; got {len(network.name_servers)}.")
    for server in network.name_servers:
        if server in (network.ip4_gateway, network.ip6_gateway):
            raise Invalid(f"name_server must not be the network's own gateway; got {server}.")


def no_address_for_hosts(network: Network, address: IPv4Address) -> str | None:
    """Return why no host of a network can have an address (`must ...`), or None if one can."""
    if network.ip4_network is None:
        return f"must be in an IPv4 network, and {network} has none"
    if address == network.ip4_gateway:
        return f"must not be the gateway of {network}"
    return addresses.not_a_host(address, network.ip4_network)
