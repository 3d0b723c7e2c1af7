"""The rules for networks: what may be asked, and what is then written. The nodes see it and act."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import TypeVar

from pvcd import (
    Change,
    Changed,
    Check,
    Conflict,
    Context,
    Create,
    Delete,
    Exists,
    Invalid,
    Message,
    NotFound,
    Put,
    Record,
    retried,
)
from pvcd_plugins.network import plan
from pvcd_plugins.network.bridge import Address, Kind, bridge_name
from pvcd_plugins.network.definition import Options, define, no_address_for_hosts, refuse_vni
from pvcd_plugins.network.records import Acls, Lease, Network, NetworkName, NodeNetwork, Reservations
from pvcd_plugins.network.settings import NetworkSettings
from pvcd_plugins.network.views import NETWORKS, NetworkList

__all__ = ["RETIRE", "Kind", "Lease", "Network", "NetworkSettings", "NodeNetwork", "bridge_name"]

R = TypeVar("R", bound=Record)
RETIRE = "network-retire"
"""Asked before a network is removed, when nobody can begin to use it any more: listeners return who uses it still, such
as `VM web1`; with one such name it stays."""
BATCH = 500
"""Leases that are forgotten in one transaction."""
SHOWN = 5
_BRIDGE = re.compile(r"vmbr([0-9]{1,8})")
_VNI = re.compile(r"[1-9][0-9]{0,7}")


# For other plugins


def find(context: Context, key: str) -> Network:
    """The network of this exact VNI or description."""
    name = None if _VNI.fullmatch(key) else context.store.get(NetworkName, key)
    network = context.store.get(Network, name.vni if name else key)
    if network is None:
        raise NotFound("network", key)
    return network


def by_bridge(context: Context, bridge: str) -> Network | None:
    """The network whose bridge has this name."""
    match = _BRIDGE.fullmatch(bridge)
    network = context.store.get(Network, int(match[1])) if match else None
    return network if network and network.bridge == bridge else None


def usable(context: Context, bridges: Iterable[str]) -> list[Check]:
    """For whoever begins to use these bridges: what to write along, so that it fails if one of the networks goes.

    `Invalid` for a bridge of no network, and of one that is being removed. Bridges of other names are none of ours.
    """
    networks: dict[int, Network] = {}
    for bridge in bridges:
        network = by_bridge(context, bridge)
        if network is None:
            if _BRIDGE.fullmatch(bridge):
                raise Invalid(f"There is no network {bridge[4:]}, whose bridge would be {bridge}.")
        elif network.removing:
            raise Invalid(f"{said(network)}, whose bridge is {bridge}, is being removed.")
        else:
            networks[network.vni] = network
    return [Check(networks[vni]) for vni in sorted(networks)]


def leases_of(context: Context, vni: int) -> list[Lease]:
    """The leases of a network that hold now, by address."""
    now = context.clock.time()
    return sorted(
        (lease for lease in context.store.all(Lease) if lease.vni == vni and lease.expires > now),
        key=lambda lease: (lease.address.version, int(lease.address)),
    )


def mac_of(context: Context, network: Network, address: Address) -> str | None:
    """The host that an address was given to, by a static lease or by one that holds now."""
    reserved = context.store.get(Reservations, network.vni)
    for each in reserved.reservations if reserved else ():
        if each.address == address:
            return each.mac
    lease = context.store.get(Lease, network.vni, address)
    return lease.mac if lease and lease.expires > context.clock.time() else None


# Networks


def said(network: Network) -> str:
    """How a sentence names a network."""
    return f"Network {network.description} ({network.vni})"


def find_managed(context: Context, key: str) -> Network:
    """The network for a change of its leases or ACLs."""
    network = find(context, key)
    if network.kind is Kind.BRIDGED:
        raise Conflict(f"{said(network)} is bridged: it has neither leases nor ACLs.", code="network-not-managed")
    if network.removing:
        raise Conflict(f"{said(network)} is being removed.", code="network-removing")
    return network


def need(context: Context, kind: type[R], *keys: object) -> R:
    """A record that is there as long as its network; one that has just been made may be unknown here."""
    record = context.store.get(kind, *keys)
    if record is None:
        raise Changed(kind.at(*keys))
    return record


def get_network(context: Context, key: str) -> NetworkList:
    """One network, as a list of one."""
    return context[NETWORKS].one(find(context, key))


def list_networks(context: Context, limit: str | None) -> NetworkList:
    """The networks whose description or VNI matches a limit, sorted by description."""
    view = context[NETWORKS]
    return view.all() if limit is None else view.those(limit, lambda network: True)


@retried
async def create(context: Context, vni: int, description: str, kind: Kind, options: Options) -> Message:
    """Remember a new network, with its name, and, if it is managed, with room for reservations and ACLs."""
    refuse_vni(vni, kind)
    network = Network(vni=vni, description=description, kind=kind)
    if context.store.get(Network, vni):
        raise Conflict(f"There is a network {vni} already.", code="network-exists")
    _refuse_taken(context, network)
    network, warnings = define(network, options)
    changes: list[Change] = [Create(network), Create(NetworkName(description=description, vni=vni))]
    if kind is Kind.MANAGED:
        changes += [Create(Reservations(vni=vni)), Create(Acls(vni=vni)), *plan.taking(context, network)]
    if any(lease.vni == vni for lease in context.store.all(Lease)) and not await context.store.read(Network, vni):
        await clear_leases(context, vni)  # of another network that had the VNI, written while that was removed
    await _write(context, changes)
    return Message(message=f"{said(network)} is created.", warnings=warnings or None)


def _refuse_taken(context: Context, network: Network) -> None:
    """Refuse a description that another network has."""
    name = context.store.get(NetworkName, network.description)
    if name is not None and name.vni != network.vni:
        raise Conflict(f"Network {name.vni} is called {network.description} already.", code="network-exists")


async def _write(context: Context, changes: list[Change]) -> None:
    """Write a network with all that belongs to it; what somebody else has just made is known at the next attempt."""
    try:
        await context.store.write(*changes)
    except Exists as error:
        raise Changed(error.path) from None


@retried
async def modify(context: Context, key: str, description: str | None, options: Options) -> Message:
    """Change what is given, if the whole is sound then. A network whose removal was begun is kept."""
    network = find(context, key)
    if description is None and not options.given and not network.removing:
        raise Invalid("At least one value must be given.")
    renamed = network.changed(description=description or network.description, removing=False)
    changed, warnings = define(renamed, options)
    changes: list[Change] = [Put(changed), *plan.taking(context, changed)]
    if changed.description != network.description:
        _refuse_taken(context, changed)
        changes.append(Delete(need(context, NetworkName, network.description)))
        changes.append(Create(NetworkName(description=changed.description, vni=network.vni)))
    if (changed.ip4_network, changed.ip4_gateway) != (network.ip4_network, network.ip4_gateway):
        changes.append(_keeping_reservations(context, changed))
    await _write(context, changes)
    return Message(message=f"{said(changed)} is modified.", warnings=warnings or None)


def _keeping_reservations(context: Context, network: Network) -> Check:
    """Refuse addresses that do not fit the static leases that there are."""
    held = need(context, Reservations, network.vni)
    for each in held.reservations:
        reason = no_address_for_hosts(network, each.address)
        if reason:
            raise Conflict(
                f"The static lease of {each.mac} would be lost, for {each.address} {reason}: remove it first.",
                code="lease-outside-network",
            )
    return Check(held)


# Removal


async def remove(context: Context, key: str) -> Message:
    """Remove a network that nobody uses, with all that belongs to it.

    First it is marked, so that nobody can begin to use it; then everybody is asked; then it goes. When this ends in the
    middle, the network stays marked: the request can be repeated, and any change of the network keeps it.
    """
    network = await _mark(context, key)
    async with contextlib.AsyncExitStack() as undo:
        undo.push_async_callback(_keep, context, network)
        await _refuse_used(context, network)
        undo.pop_all()
    await clear_leases(context, network.vni)
    await _forget(context, network)
    return Message(message=f"{said(network)} is removed.")


@retried
async def _mark(context: Context, key: str) -> Network:
    """Let nobody begin to use a network; when this returns, all who did before are known here."""
    network = find(context, key)
    if not network.removing:
        await context.store.write(Put(network.changed(removing=True)))
    await context.store.catch_up()
    marked = context.store.get(Network, network.vni)
    if marked is None or not marked.removing:
        raise Changed(network.path)
    return marked


async def _refuse_used(context: Context, network: Network) -> None:
    answers = await context.operations.ask(context, RETIRE, vni=network.vni, bridge=network.bridge)
    users = sorted(user for users in answers for user in users)
    if users:
        shown = ", ".join(users[:SHOWN]) + (f" and {len(users) - SHOWN} more" if len(users) > SHOWN else "")
        raise Conflict(f"{said(network)} is not removed, for it is used by {shown}.", code="network-in-use")


@retried
async def _keep(context: Context, marked: Network) -> None:
    """Take the mark away again, unless somebody else has changed the network since."""
    network = context.store.get(Network, marked.vni)
    if network is not None and network.serial == marked.serial:
        await context.store.write(Put(network.changed(removing=False)))


@retried
async def _forget(context: Context, marked: Network) -> None:
    """Remove all records of a network, provided that it is the one that was marked."""
    network = context.store.get(Network, marked.vni)
    if network is None:
        return
    if network.serial != marked.serial:
        raise Conflict(f"{said(network)} was changed by somebody else, and so is kept.", code="changed")
    records: list[Record] = [need(context, NetworkName, network.description), network]
    if network.kind is Kind.MANAGED:
        records += [need(context, Reservations, network.vni), need(context, Acls, network.vni)]
    await context.store.write(*map(Delete, records), *plan.giving_back(context, network))


async def clear_leases(context: Context, vni: int) -> None:
    """Forget all leases of a network, some hundred at a time."""
    while await _clear_some_leases(context, vni):
        pass


@retried
async def _clear_some_leases(context: Context, vni: int) -> bool:
    leases = [lease for lease in context.store.all(Lease) if lease.vni == vni][:BATCH]
    if leases:
        await context.store.write(*map(Delete, leases))
    return len(leases) == BATCH
