"""Parses the calls of the lease script, and renders known leases for dnsmasq. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from uuid import NAMESPACE_URL, uuid5

from pvcd import Invalid
from pvcd_plugins.network.dhcp import Address, Leased

NONE = "*"
_HOSTNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_HEX = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){0,254}")
_FIELDS = 9


@dataclass(frozen=True)
class LeaseEvent:
    """One call of the script."""

    vni: int
    action: str
    """`add`, `old` or `del`; others do not concern leases."""
    address: Address | None = None
    lease: Leased | None = None
    """None for `del`."""


def read(line: str) -> LeaseEvent:
    """Parse a call of the script; raises `Invalid` for one that dnsmasq never makes."""
    fields = line.split("\0")
    try:
        if len(fields) != _FIELDS:
            raise ValueError
        vni, action, hardware, address, hostname, expires, client_id, iaid, mac = fields
        if action not in ("add", "old", "del"):
            return LeaseEvent(int(vni), action)
        where = ip_address(address)
        if action == "del":
            return LeaseEvent(int(vni), action, where)
        lease = Leased(where, hardware, client_id or NONE, hostname or None, float(expires))
        if isinstance(where, IPv6Address):
            # A temporary address has a T before its number.
            lease = Leased(where, mac or None, hardware, hostname or None, float(expires), int(iaid.lstrip("T")))
        return LeaseEvent(int(vni), action, where, lease)
    except ValueError:
        raise Invalid(f"Cannot parse a lease reported by dnsmasq: {line!r:.300}.") from None


def server_id(vni: int) -> str:
    """Return the DHCPv6 server's DUID, the same on every node (RFC 6355, from a UUID)."""
    return (b"\0\4" + uuid5(NAMESPACE_URL, f"pvcd:network:{vni}").bytes).hex(":")


def known(vni: int, leases: Iterable[Leased]) -> str:
    """Render the leases that dnsmasq reads at its start, without those that it could not parse."""
    lines = [_line(lease) for lease in sorted(leases, key=lambda each: (each.address.version, int(each.address)))]
    # dnsmasq expects IPv6 leases after the DUID.
    return "".join(f"{line}\n" for line in [f"duid {server_id(vni)}", *filter(None, lines)])


def _line(lease: Leased) -> str | None:
    hostname = lease.hostname if lease.hostname and _HOSTNAME.fullmatch(lease.hostname) else NONE
    client_id = lease.client_id if _HEX.fullmatch(lease.client_id) else NONE
    who: str | None = lease.mac if lease.mac and _HEX.fullmatch(lease.mac) else None
    if isinstance(lease.address, IPv6Address):
        who = f"{lease.iaid:d}" if lease.iaid is not None and client_id != NONE and not lease.address.scope_id else None
    return None if who is None else f"{lease.expires:.0f} {who} {lease.address} {hostname} {client_id}"
