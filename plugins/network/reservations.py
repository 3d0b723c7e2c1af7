"""The rules for leases: which are shown, and which addresses a host can be given for good."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

from pvcd import Check, Conflict, Context, Invalid, Message, NotFound, Put, matcher, retried
from pvcd_plugins.network import addresses
from pvcd_plugins.network.definition import no_address_for_hosts
from pvcd_plugins.network.dhcp import Reservation
from pvcd_plugins.network.records import Lease, Network, Reservations, has_room
from pvcd_plugins.network.service import find, find_managed, leases_of, need, said
from pvcd_plugins.network.views import LeaseView

STATIC = "static"


def list_leases(context: Context, network: str, limit: str | None, static: bool) -> list[LeaseView]:
    """The leases of a network, active and static ones, whose MAC matches a limit; by MAC and address."""
    matches = matcher(limit)
    return [
        lease
        for lease in _leases(context, find(context, network))
        if matches((lease.mac_address,) if lease.mac_address else ()) and (not static or lease.timestamp == STATIC)
    ]


def get_lease(context: Context, network: str, key: str) -> list[LeaseView]:
    """The lease of a MAC, host name or address; of a host with IPv4 and IPv6 all."""
    found = find(context, network)
    leases = list(filter(_is(key), _leases(context, found)))
    if not leases:
        raise NotFound("lease", key)
    return leases


def _leases(context: Context, network: Network) -> list[LeaseView]:
    """All of a network: an active lease of what is reserved for the same host counts as static."""
    held = context.store.get(Reservations, network.vni)
    reserved = {(each.mac, each.address): each for each in (held.reservations if held else ())}
    active = leases_of(context, network.vni)
    names = {(lease.mac, lease.address): lease.hostname for lease in active}
    leases = [_view(each.mac, each.address, each.hostname or names.get(key), STATIC) for key, each in reserved.items()]
    leases += [
        _view(lease.mac, lease.address, lease.hostname, str(int(lease.expires)))
        for lease in active
        if (lease.mac, lease.address) not in reserved
    ]
    return sorted(leases, key=_order)


def _view(mac: str | None, address: IPv4Address | IPv6Address, hostname: str | None, timestamp: str) -> LeaseView:
    ip4, ip6 = (address, None) if isinstance(address, IPv4Address) else (None, address)
    return LeaseView(hostname=hostname, ip4_address=ip4, ip6_address=ip6, mac_address=mac, timestamp=timestamp)


def _order(lease: LeaseView) -> tuple[bool, str, bool, int]:
    """By MAC, those without one last; then by address, IPv4 first."""
    address = lease.ip4_address or lease.ip6_address
    return lease.mac_address is None, lease.mac_address or "", lease.ip4_address is None, int(address or 0)


def _is(key: str) -> Callable[[LeaseView], bool]:
    """Whether a lease has this MAC, host name or address, however that is written."""
    wanted: set[object] = {key.lower()}
    for read in (addresses.read_mac, ip_address):
        try:
            wanted.add(read(key))
        except ValueError:
            continue
    return lambda lease: (
        not wanted.isdisjoint(
            (lease.mac_address, lease.hostname and lease.hostname.lower(), lease.ip4_address or lease.ip6_address)
        )
    )


@retried
async def add_lease(context: Context, key: str, mac: str, address: IPv4Address, hostname: str | None) -> Message:
    """Reserve an address for a host."""
    network = find_managed(context, key)
    reason = no_address_for_hosts(network, address)
    if reason:
        raise Invalid(f"ipaddress {address} {reason}.")
    held = need(context, Reservations, network.vni)
    new = Reservation(mac, address, hostname or None)
    for same in filter(None, (_same(new, other) for other in held.reservations)):
        raise Conflict(same, code="lease-exists")
    changed = held.changed(reservations=tuple(sorted((*held.reservations, new), key=lambda each: each.mac)))
    if not has_room(changed):
        raise Conflict(
            f"{said(network)} has {len(held.reservations)} static leases, and no room for more.", code="network-full"
        )
    await context.store.write(Put(changed), Check(network))
    return Message(
        message=f"The address {address} of network {network.description} is that of {mac}.",
        warnings=_warnings(context, network, new) or None,
    )


def _same(new: Reservation, other: Reservation) -> str | None:
    """What one reservation has that another one of the network has as well."""
    if new.mac == other.mac:
        return f"{new.mac} has a static lease of {other.address} already."
    if new.address == other.address:
        return f"{new.address} is that of {other.mac} already."
    if new.hostname is not None and new.hostname == other.hostname:
        return f"{new.hostname} is the name of {other.mac} already."
    return None


def _warnings(context: Context, network: Network, new: Reservation) -> list[str]:
    warnings = []
    if not network.dhcp4:
        warnings.append(f"{said(network)} has no dhcp4, so nobody is given an address.")
    lease = context.store.get(Lease, network.vni, new.address)
    if lease is not None and lease.mac != new.mac and lease.expires > context.clock.time():
        warnings.append(f"{new.address} is leased to {lease.mac}, and is given to {new.mac} when that has ended.")
    return warnings


@retried
async def remove_lease(context: Context, key: str, lease: str) -> Message:
    """Give up a reservation; an active lease of it ends in its own time."""
    network = find_managed(context, key)
    found = get_lease(context, key, lease)
    held = need(context, Reservations, network.vni)
    gone = {(each.mac_address, each.ip4_address) for each in found if each.timestamp == STATIC}
    if not gone:
        raise Conflict(
            f"The lease {lease!r} is not static: it ends by itself, when its host does not renew it.",
            code="lease-not-static",
        )
    kept = tuple(each for each in held.reservations if (each.mac, each.address) not in gone)
    await context.store.write(Put(held.changed(reservations=kept)), Check(network))
    macs = ", ".join(sorted(str(mac) for mac, _ in gone))
    return Message(message=f"The static lease of {macs} in network {network.description} is removed.")
