"""Each argument of the network endpoints, described once. An empty option of a network removes its current value."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from pvcd import Flag, Name, Path, Value
from pvcd_plugins.network.bridge import MAX_VNI, Address, Kind
from pvcd_plugins.network.firewall import MAX_RULE_LENGTH
from pvcd_plugins.network.rules import addresses

EMPTY = Literal[""]


def unless_empty(read: Callable[[object], Any]) -> Callable[[object], Any]:
    """Make a parser that keeps an empty text."""
    return lambda text: "" if text == "" else read(text)


def no_number(name: str) -> str:
    """Refuse a description that could be a VNI."""
    if name.isdecimal():
        raise ValueError("must not be only digits, which would be taken for a VNI")
    return name


def _text(format: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "format": format})


Net4 = Annotated[IPv4Network | EMPTY, BeforeValidator(unless_empty(addresses.read_ip4_network)), _text("ipv4network")]
Net6 = Annotated[IPv6Network | EMPTY, BeforeValidator(unless_empty(addresses.read_ip6_network)), _text("ipv6network")]
Host4 = Annotated[IPv4Address | EMPTY, BeforeValidator(unless_empty(addresses.read_ip4_address)), _text("ipv4")]
Server = Annotated[Address | EMPTY, BeforeValidator(unless_empty(addresses.read_name_server)), _text("ipvanyaddress")]
DomainName = Annotated[str, BeforeValidator(unless_empty(addresses.read_domain)), _text("hostname")]
Mac = Annotated[str, BeforeValidator(addresses.read_mac), WithJsonSchema({"type": "string"})]
HostLabel = Annotated[str, BeforeValidator(unless_empty(addresses.read_hostname)), _text("hostname")]

NetworkKey = Annotated[str, Path("VNI or description of the network")]
NetworkLimit = Annotated[
    str | None, Value("A regular expression that the network's description or VNI must match somewhere", name="limit")
]
Vni = Annotated[
    int,
    Field(ge=1, le=MAX_VNI[Kind.MANAGED]),
    Value("The VLAN tag of a `bridged` network, 1 to 4094, or the VXLAN id of a `managed` one, 1 to 16777215"),
]
NetworkKind = Annotated[
    Kind,
    Value(
        "`bridged`: a VLAN of the site; `managed`: tunnels between the nodes, with DHCP, DNS and ACLs", name="nettype"
    ),
]
Description = Annotated[Name, AfterValidator(no_number), Value("Its name, without blanks and not only digits")]
Domain = Annotated[
    DomainName | None, Value("The DNS domain of its hosts, unique among networks; default: `<description>.local`")
]
NameServers = Annotated[
    list[Server] | None,
    Value("A name server for other domains; give it once for each server", name="name_server", repeated=True),
]
Ip4Network = Annotated[Net4 | None, Value("Its IPv4 network, such as `10.20.0.0/24`, /8 to /30")]
Ip4Gateway = Annotated[Host4 | None, Value("The primary's address in it; required with `ip4_network`")]
Ip6Network = Annotated[Net6 | None, Value("Its IPv6 network, such as `fd00:20::/64`, always /64")]
Ip6Gateway = Annotated[
    str | None, Value("The primary's address in it; default, also for an invalid one: `<network>::1`")
]
Dhcp4 = Annotated[bool | None, Flag("Give IPv4 addresses to hosts; requires `dhcp4_start` and `dhcp4_end`")]
Dhcp4Start = Annotated[Host4 | None, Value("The first address of the DHCP range")]
Dhcp4End = Annotated[Host4 | None, Value("The last address of the DHCP range")]

LeaseKey = Annotated[str, Path("MAC address, host name or IP address")]
LeaseLimit = Annotated[
    str | None, Value("A regular expression that the MAC address must match somewhere", name="limit")
]
Static = Annotated[bool, Flag("Only static leases")]
MacAddress = Annotated[Mac, Value("The MAC address of the host", name="macaddress")]
IpAddress = Annotated[
    IPv4Address,
    BeforeValidator(addresses.read_ip4_address),
    _text("ipv4"),
    Value("An address in the network's IPv4 network, preferably outside the DHCP range", name="ipaddress"),
]
Hostname = Annotated[HostLabel | None, Value("The name of the host, without a domain")]

AclKey = Annotated[str, Path("Description of the ACL")]
AclLimit = Annotated[
    str | None, Value("A regular expression that the ACL's description must match somewhere", name="limit")
]
Direction = Annotated[Literal["in", "out"], Value("`in` for packets to the network, `out` for packets from it")]
AclDescription = Annotated[Name, Value("Its name, without blanks", name="description")]
Rule = Annotated[
    str,
    Field(min_length=1, max_length=MAX_RULE_LENGTH),
    Value("The text of one nftables rule, beginning with its first expression"),
]
Order = Annotated[
    int | None, Field(ge=0), Value("Its place in its direction, from 0; default, also for one beyond the end: last")
]
