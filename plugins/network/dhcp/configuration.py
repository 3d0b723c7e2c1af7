"""Renders the files of a network's dnsmasq. Pure functions.

Every value is checked, so that none can add a line or an option: addresses are rendered from their numbers, and names
must be valid names. Host names stand only in the file of names, because `dhcp-host` takes some for keywords (`ignore`,
`12h`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path

from pvcd import Invalid
from pvcd_plugins.network.bridge import Kind, bridge_name, wrong
from pvcd_plugins.network.dhcp import Address, Reservation, Served
from pvcd_plugins.network.dnsmasq import BASE

LEASE4, LEASE6 = "48h", "24h"
METADATA = "169.254.169.254/32"
MAX_LEASES = 10_000
"""Per network; guests can invent as many clients as they like."""
DYNAMIC6 = 0xFFFF
"""The last address that DHCPv6 gives out, counted from the first of the network."""
RA_SECONDS, ROUTER_SECONDS = 60, 180
"""Interval of router advertisements, and how long guests use the router: short, because it moves with the primary."""
SLAAC = 64
"""The prefix length with which hosts choose their own addresses; dnsmasq supports no shorter one."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(_LABEL)
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


@dataclass(frozen=True)
class Place:
    """The paths of one network's files."""

    directory: Path

    @property
    def configuration(self) -> Path:
        """The configuration of dnsmasq."""
        return self.directory / "dnsmasq.conf"

    @property
    def script(self) -> Path:
        """The script that dnsmasq runs for each lease."""
        return self.directory / "lease-script"

    @property
    def known(self) -> Path:
        """The leases that dnsmasq starts with."""
        return self.directory / "known"

    @property
    def reservations(self) -> Path:
        """The directory with a file for each static lease."""
        return self.directory / "reservations"

    @property
    def names(self) -> Path:
        """The directory with a file for each host name."""
        return self.directory / "names"


def configuration(served: Served, place: Place) -> str:
    """Render the configuration, without static leases; raises `Invalid` for a network that cannot be served."""
    return "".join(f"{line}\n" for line in (*BASE, *_names(served, place), *_dhcp4(served, place), *_dhcp6(served)))


def reservations(served: Served) -> dict[str, str]:
    """Render the files of the static leases, by file name."""
    files = {}
    for each in served.reservations:
        mac = _matching(_MAC, each.mac, "MAC address", served)
        files[mac.replace(":", "-")] = f"{mac},{_inside(each, served)}\n"
    return files


def names(served: Served) -> dict[str, str]:
    """Render the files of their host names, by file name."""
    files = {}
    for each in served.reservations:
        if each.hostname is not None:
            name = _matching(_HOSTNAME, each.hostname, "host name", served)
            files[_matching(_MAC, each.mac, "MAC address", served).replace(":", "-")] = (
                f"{text_of(each.address)} {name}\n"
            )
    return files


def text_of(address: Address) -> str:
    """Render an address; raises `Invalid` for one with a zone, which could be any text."""
    if not isinstance(address, IPv4Address | IPv6Address) or (isinstance(address, IPv6Address) and address.scope_id):
        raise Invalid(f"address must be an IPv4 or IPv6 address without a zone; got {str(address)!r:.100}.")
    return str(address)


def checked_domain(domain: str) -> str:
    """Return a domain that can stand in a configuration; raises `Invalid` for any other text."""
    if len(domain) > 253 or not _DOMAIN.fullmatch(domain):
        raise Invalid(f"domain must be the name of a DNS domain; got {domain!r:.300}.")
    return domain


def _names(served: Served, place: Place) -> Iterator[str]:
    if sentence := wrong(served.vni, Kind.MANAGED):
        raise Invalid(sentence)
    yield f"interface={bridge_name(served.vni)}"
    yield from ("except-interface=lo", "no-resolv", f"hostsdir={place.names}")
    if served.domain:
        domain = checked_domain(served.domain)
        yield from (f"domain={domain}", f"local=/{domain}/", "expand-hosts")
    for gateway in (served.ip4, served.ip6):
        if gateway is not None:
            yield f"rev-server={text_of(gateway.network.network_address)}/{gateway.network.prefixlen:d}"
    yield from (f"server={text_of(each)}" for each in served.name_servers)


def _dhcp4(served: Served, place: Place) -> Iterator[str]:
    if not 576 <= served.mtu <= 65535:
        raise Invalid(f"mtu of network {served.vni} must be from 576 to 65535; got {served.mtu!r}.")
    yield from ("leasefile-ro", "script-on-renewal", f"dhcp-script={place.script}", "dhcp-authoritative", "no-ping")
    yield from ("quiet-dhcp", "quiet-dhcp6", "quiet-ra", f"dhcp-lease-max={_most_leases(served)}")
    # Browsers would ask a guest of this name for their proxy settings.
    yield from ("dhcp-name-match=set:wpad,wpad", "dhcp-ignore-names=tag:wpad")
    if served.dhcp4 is None:
        return
    first, last = served.dhcp4
    if served.ip4 is None or not first <= last or {first, last} - {*_hosts(served, first, last)}:
        raise Invalid(f"DHCP range must be within network {served.vni}; got {first!s:.50} to {last!s:.50}.")
    gateway, mask = text_of(served.ip4.ip), served.ip4.network.netmask
    yield f"dhcp-range={text_of(first)},{text_of(last)},{text_of(mask)},{LEASE4}"
    yield f"dhcp-hostsdir={place.reservations}"
    yield from (f"dhcp-option=option:{name},{gateway}" for name in ("router", "dns-server", "ntp-server"))
    yield f"dhcp-option=option:mtu,{served.mtu:d}"
    # Clients that support this option ignore the router option, so it must contain the default route too.
    yield f"dhcp-option=option:classless-static-route,{METADATA},{gateway},0.0.0.0/0,{gateway}"
    if served.domain:
        yield f"dhcp-option=option:domain-search,{checked_domain(served.domain)}"


def _dhcp6(served: Served) -> Iterator[str]:
    pool = _pool6(served)
    if served.ip6 is None or (pool is None and not _is_stateless(served)):
        return
    network, bridge = _network6(served.ip6.network, served.ip6.ip), bridge_name(served.vni)
    if pool is None:
        yield f"dhcp-range={text_of(network.network_address)},ra-stateless,{network.prefixlen:d},{LEASE6}"
    else:
        yield f"dhcp-range={text_of(pool[0])},{text_of(pool[1])},{network.prefixlen:d},{LEASE6}"
    yield from ("enable-ra", f"ra-param={bridge},mtu:{served.mtu:d},{RA_SECONDS},{ROUTER_SECONDS}")
    gateway = text_of(served.ip6.ip)
    yield from (f"dhcp-option=option6:{name},[{gateway}]" for name in ("dns-server", "sntp-server"))
    if served.domain:
        yield f"dhcp-option=option6:domain-search,{checked_domain(served.domain)}"


def _is_stateless(served: Served) -> bool:
    """Return whether hosts choose their own IPv6 addresses: if they have IPv4 too and the network is large enough."""
    return served.ip4 is not None and served.ip6 is not None and served.ip6.network.prefixlen <= SLAAC


def _network6(network: IPv6Network, gateway: IPv6Address) -> IPv6Network:
    """Return the part of a network that is served: the /64 of the gateway, or all of a smaller one."""
    if network.prefixlen >= SLAAC:
        return network
    return IPv6Network((int(gateway), SLAAC), strict=False)


def _pool6(served: Served) -> tuple[IPv6Address, IPv6Address] | None:
    """Return the first and last address that DHCPv6 gives out."""
    if served.ip6 is None or _is_stateless(served) or served.ip6.network.prefixlen > 126:
        return None
    network = _network6(served.ip6.network, served.ip6.ip)
    first = int(network.network_address)
    return IPv6Address(first + 2), IPv6Address(min(first + DYNAMIC6, int(network.broadcast_address)))


def _most_leases(served: Served) -> int:
    """Count the addresses of the pools, plus room for static leases, which may change without a restart."""
    pools = [served.dhcp4, _pool6(served)]
    sizes = sum(int(pool[1]) - int(pool[0]) + 1 for pool in pools if pool is not None)
    return min(sizes, MAX_LEASES) + 1000


def _hosts(served: Served, *addresses: Address) -> list[Address]:
    """Filter the addresses that hosts of the network can have."""
    if served.ip4 is None:
        return []
    network, outer = served.ip4.network, set[Address]()
    if network.prefixlen < 31:
        outer = {network.network_address, network.broadcast_address}
    return [each for each in addresses if isinstance(each, IPv4Address) and each in network and each not in outer]


def _inside(reservation: Reservation, served: Served) -> str:
    if not _hosts(served, reservation.address):
        raise Invalid(f"Reserved address must be within network {served.vni}; got {reservation.address!s:.50}.")
    return text_of(reservation.address)


def _matching(pattern: re.Pattern[str], value: str, what: str, served: Served) -> str:
    if not pattern.fullmatch(value):
        raise Invalid(f"{what} of a host in network {served.vni} must be valid; got {value!r:.100}.")
    return value
