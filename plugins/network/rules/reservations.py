"""The rules for leases: listing all, and adding and removing static ones."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

from pvcd import Check, Conflict, Context, Invalid, Message, NotFound, Put, matcher, retried, wrong_value
from pvcd_plugins.network.dhcp import Reservation
from pvcd_plugins.network.records import Lease, Network, Reservations, has_room
from pvcd_plugins.network.rules import addresses
from pvcd_plugins.network.rules.definition import no_address_for_hosts
from pvcd_plugins.network.service import find, find_managed, leases_of, need
from pvcd_plugins.network.views import LeaseView

STATIC = "static"


def list_leases(context: Context, network: str, limit: str | None, static: bool) -> list[LeaseView]:
    """List the active and static leases of a network whose MAC matches a limit, by MAC and address."""
    matches = matcher(limit)
    return [
        lease
        for lease in _leases(context, find(context, network))
        if matches((lease.mac_address,) if lease.mac_address else ()) and (not static or lease.timestamp == STATIC)
    ]


def get_lease(context: Context, network: str, key: str) -> list[LeaseView]:
    """Return the leases of a MAC, host name or address; a host with IPv4 and IPv6 has several."""
    found = find(context, network)
    leases = list(filter(_matching(key), _leases(context, found)))
    if not leases:
        raise NotFound("lease", key)
    return leases


def _leases(context: Context, network: Network) -> list[LeaseView]:
    """Return all leases of a network; an active lease of a reserved address counts as static."""
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
    """Sort by MAC, unknown ones last; then by address, IPv4 first."""
    address = lease.ip4_address or lease.ip6_address
    return lease.mac_address is None, lease.mac_address or "", lease.ip4_address is None, int(address or 0)


def _matching(key: str) -> Callable[[LeaseView], bool]:
    """Make a filter for a MAC, host name or address in any notation."""
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
        raise Invalid(wrong_value("ipaddress", str(address), reason))
    held = need(context, Reservations, network.vni)
    new = Reservation(mac, address, hostname or None)
    for reason in filter(None, (_same(new, other) for other in held.reservations)):
        raise Conflict(f"Cannot add a static lease to {network}: {reason}. Remove it first.", code="lease-exists")
    changed = held.changed(reservations=tuple(sorted((*held.reservations, new), key=lambda each: each.mac)))
    if not has_room(changed):
        raise Conflict(
            f"Cannot add a static lease to {network}: the limit is reached with {len(held.reservations)}.",
            code="network-full",
        )
    await context.store.write(Put(changed), Check(network))
    return Message(
        message=f"Static lease added: {mac} -> {address} ({network}).",
        warnings=_warnings(context, network, new) or None,
    )


def _same(new: Reservation, other: Reservation) -> str | None:
    """Return what a new reservation has in common with another one of the network, if anything."""
    lease = f"there is one for {other.mac} -> {other.address}"
    if new.mac == other.mac or new.address == other.address:
        return lease
    if new.hostname is not None and new.hostname == other.hostname:
        return f"{lease} with the host name {other.hostname!r}"
    return None


def _warnings(context: Context, network: Network, new: Reservation) -> list[str]:
    warnings = []
    if not network.dhcp4:
        warnings.append(f"The lease has no effect yet: DHCP is off in {network}.")
    lease = context.store.get(Lease, network.vni, new.address)
    if lease is not None and lease.mac != new.mac and lease.expires > context.clock.time():
        warnings.append(f"{new.mac} gets {new.address} only when the current lease of {lease.mac} ends.")
    return warnings


@retried
async def remove_lease(context: Context, key: str, lease: str) -> Message:
    """Remove a reservation; an active lease of its address ends in its own time."""
    network = find_managed(context, key)
    found = get_lease(context, key, lease)
    held = need(context, Reservations, network.vni)
    gone = {(each.mac_address, each.ip4_address) for each in found if each.timestamp == STATIC}
    if not gone:
        raise Conflict(
            f"Cannot remove lease {lease!r}: it is not static, and ends when its host stops renewing it.",
            code="lease-not-static",
        )
    kept = tuple(each for each in held.reservations if (each.mac, each.address) not in gone)
    await context.store.write(Put(held.changed(reservations=kept)), Check(network))
    leases = ", ".join(sorted(f"{mac} -> {address}" for mac, address in gone))
    return Message(message=f"Static lease removed: {leases} ({network}).")
