"""Parses networks, addresses, MACs, host names and domains; raises ValueError (`must be ...`) for any other text.

Each text must match an exact pattern before it is parsed, so that nothing in it can be an option or a keyword to the
programs that it is passed to.
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

IP4_PREFIX_LENGTHS = range(8, 31)
IP6_PREFIX_LENGTH = 64
MAX_DOMAIN_LENGTH = 189
"""In characters; a host name of 63 and a dot before it make 253, the limit of DNS."""

_ADDRESS = re.compile(r"[0-9A-Fa-f.:]{2,45}")
_CIDR = re.compile(r"[0-9A-Fa-f.:]{2,45}/[0-9]{1,3}")
_MAC = re.compile(r"[0-9a-f]{2}(?:(?::[0-9a-f]{2}){5}|(?:-[0-9a-f]{2}){5})")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NO_HOSTNAME = re.compile(r"[0-9]+[smhdw]?|infinite|ignore|localhost")
"""Words that dnsmasq would take for a lease time or a keyword."""
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
    """Parse an IPv4 network, such as 10.20.0.0/24."""
    found = _interface(IPv4Interface, text, "10.20.0.0/24")
    network = found.network
    if network.prefixlen not in IP4_PREFIX_LENGTHS:
        raise ValueError(f"must have a prefix length of /{IP4_PREFIX_LENGTHS[0]} to /{IP4_PREFIX_LENGTHS[-1]}")
    _refuse_host_bits(found.ip, network)
    _refuse_special(network)
    return network


def read_ip6_network(text: object) -> IPv6Network:
    """Parse an IPv6 network, such as fd00:20::/64."""
    found = _interface(IPv6Interface, text, "fd00:20::/64")
    network = found.network
    if network.prefixlen != IP6_PREFIX_LENGTH:
        raise ValueError(f"must have a prefix length of /{IP6_PREFIX_LENGTH}, so that hosts can choose their addresses")
    _refuse_host_bits(found.ip, network)
    _refuse_special(network)
    return network


def _interface(kind: type[AnyInterface], text: object, example: str) -> AnyInterface:
    if _CIDR.fullmatch(str(text)):
        try:
            return kind(str(text))
        except (AddressValueError, NetmaskValueError):
            pass
    raise ValueError(f"must be an {_version(kind)} network with its prefix length, such as {example}")


def _version(kind: type[object]) -> str:
    return "IPv4" if kind in (IPv4Interface, IPv4Address) else "IPv6"


def _refuse_host_bits(address: Address, network: IpNetwork) -> None:
    if address != network.network_address:
        raise ValueError(f"must be the network {network}, not the address of a host in it")


def _refuse_special(network: IpNetwork) -> None:
    for special, what in _SPECIAL:
        if special.version == network.version and special.overlaps(network):
            raise ValueError(f"must not overlap with {special} ({what})")


def read_ip4_address(text: object) -> IPv4Address:
    """Parse an IPv4 address, such as 10.20.0.1."""
    return _address(IPv4Address, text, "10.20.0.1")


def read_ip6_address(text: object) -> IPv6Address:
    """Parse an IPv6 address, such as fd00:20::1."""
    return _address(IPv6Address, text, "fd00:20::1")


def _address(kind: type[AnyAddress], text: object, example: str) -> AnyAddress:
    if _ADDRESS.fullmatch(str(text)):
        try:
            return kind(str(text))
        except AddressValueError:
            pass
    raise ValueError(f"must be an {_version(kind)} address, such as {example}")


def read_name_server(text: object) -> Address:
    """Parse the address of a name server of the site."""
    try:
        address = ip_address(str(text)) if _ADDRESS.fullmatch(str(text)) else None
    except ValueError:
        address = None
    if address is None:
        raise ValueError("must be an IPv4 or IPv6 address, such as 10.20.0.53")
    network = IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address)
    _refuse_special(network)
    return address


def read_mac(text: object) -> str:
    """Parse a MAC address, also with hyphens or upper case. Returns it with colons in lower case."""
    mac = str(text).lower()
    if not _MAC.fullmatch(mac):
        raise ValueError("must be a MAC address, such as 52:54:00:3c:81:a0")
    mac = mac.replace("-", ":")
    if int(mac[:2], 16) & 1:
        raise ValueError("must be the address of a host, not of a group")
    if mac == "00:00:00:00:00:00":
        raise ValueError("must not be all zeros")
    return mac


def read_hostname(text: object) -> str:
    """Parse the name of a host without its domain. Returns it in lower case."""
    name = str(text).lower()
    if not _LABEL.fullmatch(name):
        raise ValueError("must be at most 63 letters, digits and '-', without a domain")
    if _NO_HOSTNAME.fullmatch(name):
        raise ValueError("must not be a number, a time or a keyword to dnsmasq")
    return name


def read_domain(text: object) -> str:
    """Parse a DNS domain. Returns it in lower case."""
    domain = str(text).lower()
    labels = domain.split(".")
    if not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("must be names of letters, digits and '-' with dots between them, such as app.example")
    if len(domain) > MAX_DOMAIN_LENGTH:
        raise ValueError(f"must have at most {MAX_DOMAIN_LENGTH} characters, to leave room for host names")
    if labels[-1].isdecimal() or labels[-1] in ("arpa", "localhost"):
        raise ValueError(f"must not end in {labels[-1]!r}")
    return domain


def not_a_host(address: Address, network: IpNetwork) -> str | None:
    """Return why no host of a network can have an address (`must ...`), or None if one can."""
    if address not in network:
        return f"must be in {network}"
    if address == network.network_address:
        return f"must not be the address of {network} itself"
    if isinstance(network, IPv4Network) and address == network.broadcast_address:
        return f"must not be the broadcast address of {network}"
    return None
