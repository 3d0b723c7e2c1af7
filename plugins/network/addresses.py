"""What networks, addresses, MACs, host names and domains may be: text -> value, or ValueError with what is wrong.

Each text is compared with an exact form before anything else looks at it, so that nothing but an address is ever taken
for one, and nothing in it can mean something to the programs that it is given to.
"""

from __future__ import annotations

import re
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    NetmaskValueError,
    ip_address,
    ip_network,
)
from typing import TypeVar

from pvcd_plugins.network.bridge import Address

AnyInterface = TypeVar("AnyInterface", IPv4Interface, IPv6Interface)
AnyAddress = TypeVar("AnyAddress", IPv4Address, IPv6Address)
IpNetwork = IPv4Network | IPv6Network

IP4_LENGTHS = range(8, 31)
IP6_LENGTH = 64
DOMAIN_LENGTH = 189
"""Characters; with the name of a host and a dot before it, it must not exceed 253."""

_ADDRESS = re.compile(r"[0-9A-Fa-f.:]{2,45}")
_CIDR = re.compile(r"[0-9A-Fa-f.:]{2,45}/[0-9]{1,3}")
_MAC = re.compile(r"[0-9a-f]{2}(?:(?::[0-9a-f]{2}){5}|(?:-[0-9a-f]{2}){5})")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NO_HOSTNAME = re.compile(r"[0-9]+[smhdw]?|infinite|ignore|localhost")
"""What dnsmasq would take for the time of a lease, or for an order."""
_SPECIAL: tuple[tuple[IpNetwork, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "unspecified"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/8", "loopback, unspecified or reserved"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    )
)


def read_ip4_network(text: object) -> IPv4Network:
    """Such as 10.20.0.0/24."""
    example = "10.20.0.0/24"
    found = _interface(IPv4Interface, text, example)
    network = found.network
    if network.prefixlen not in IP4_LENGTHS:
        raise ValueError(f"its length must be /{IP4_LENGTHS[0]} to /{IP4_LENGTHS[-1]}, such as {example}")
    _refuse_host_bits(found.ip, network)
    _refuse_special(network)
    return network


def read_ip6_network(text: object) -> IPv6Network:
    """Such as fd00:20::/64."""
    example = "fd00:20::/64"
    found = _interface(IPv6Interface, text, example)
    network = found.network
    if network.prefixlen != IP6_LENGTH:
        raise ValueError(f"its length must be /{IP6_LENGTH}, so that hosts can choose addresses, such as {example}")
    _refuse_host_bits(found.ip, network)
    _refuse_special(network)
    return network


def _interface(kind: type[AnyInterface], text: object, example: str) -> AnyInterface:
    if _CIDR.fullmatch(str(text)):
        try:
            return kind(str(text))
        except (AddressValueError, NetmaskValueError):
            pass
    raise ValueError(f"write an {_version(kind)} network with its length, such as {example}")


def _version(kind: type[object]) -> str:
    return "IPv4" if kind in (IPv4Interface, IPv4Address) else "IPv6"


def _refuse_host_bits(address: Address, network: IpNetwork) -> None:
    if address != network.network_address:
        raise ValueError(f"it is the address of a host, and its network is {network}")


def _refuse_special(network: IpNetwork) -> None:
    for special, what in _SPECIAL:
        if special.version == network.version and special.overlaps(network):
            raise ValueError(f"the addresses of {special} are {what}")


def read_ip4_address(text: object) -> IPv4Address:
    """Such as 10.20.0.1."""
    return _address(IPv4Address, text, "10.20.0.1")


def read_ip6_address(text: object) -> IPv6Address:
    """Such as fd00:20::1."""
    return _address(IPv6Address, text, "fd00:20::1")


def _address(kind: type[AnyAddress], text: object, example: str) -> AnyAddress:
    if _ADDRESS.fullmatch(str(text)):
        try:
            return kind(str(text))
        except AddressValueError:
            pass
    raise ValueError(f"write an {_version(kind)} address, such as {example}")


def read_name_server(text: object) -> Address:
    """An address that a name server of the site can have."""
    try:
        address = ip_address(str(text)) if _ADDRESS.fullmatch(str(text)) else None
    except ValueError:
        address = None
    if address is None:
        raise ValueError("write an IPv4 or IPv6 address, such as 10.20.0.53")
    network = IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address)
    _refuse_special(network)
    return address


def read_mac(text: object) -> str:
    """In small letters with colons, as everybody else writes it; with hyphens or capitals it is understood."""
    mac = str(text).lower()
    if not _MAC.fullmatch(mac):
        raise ValueError("write a MAC address, such as 52:54:00:3c:81:a0")
    mac = mac.replace("-", ":")
    if int(mac[:2], 16) & 1:
        raise ValueError("this is the address of a group, not of a host")
    if mac == "00:00:00:00:00:00":
        raise ValueError("no host has this address")
    return mac


def read_hostname(text: object) -> str:
    """The name of a host without its domain, in small letters."""
    name = str(text).lower()
    if not _LABEL.fullmatch(name):
        raise ValueError("write a name of letters, digits and '-' without a domain, of at most 63 characters")
    if _NO_HOSTNAME.fullmatch(name):
        raise ValueError("this has another meaning where hosts are configured: choose another one")
    return name


def read_domain(text: object) -> str:
    """A DNS domain in small letters."""
    domain = str(text).lower()
    labels = domain.split(".")
    if not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("write names of letters, digits and '-' with dots between them, such as app.example")
    if len(domain) > DOMAIN_LENGTH:
        raise ValueError(f"it has more than {DOMAIN_LENGTH} characters, which leaves no room for the names of hosts")
    if labels[-1].isdecimal() or labels[-1] in ("arpa", "localhost"):
        raise ValueError(f"no network can have names in {labels[-1]!r}")
    return domain


def not_a_host(address: Address, network: IpNetwork) -> str | None:
    """Why no host of a network can have an address, if it is so."""
    if address not in network:
        return f"is not in {network}"
    if address == network.network_address:
        return f"is the address of {network} itself"
    if isinstance(network, IPv4Network) and address == network.broadcast_address:
        return f"is the broadcast address of {network}"
    return None
