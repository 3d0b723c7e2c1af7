"""The rules for networks: listing, creating, changing and removing them, and their use by other plugins."""

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
    Invalid,
    Message,
    NotFound,
    Put,
    Record,
    retried,
)
from pvcd_plugins.network.bridge import Address, Kind, bridge_name, wrong
from pvcd_plugins.network.records import Acls, Lease, Network, NetworkName, NodeNetwork, Reservations
from pvcd_plugins.network.rules import leases, plan
from pvcd_plugins.network.rules.definition import Options, define, no_address_for_hosts
from pvcd_plugins.network.settings import NetworkSettings
from pvcd_plugins.network.views import NETWORKS, NetworkList

__all__ = ["RETIRE", "Kind", "Lease", "Network", "NetworkSettings", "NodeNetwork", "bridge_name"]

R = TypeVar("R", bound=Record)
RETIRE = "network-retire"
"""Asked before a network is removed, once new uses are refused: listeners return its users, such as `VM 'web1'`, which
keep it."""
MAX_SHOWN_USERS = 5
_BRIDGE = re.compile(r"vmbr([0-9]{1,8})")
_VNI = re.compile(r"[1-9][0-9]{0,7}")


# For other plugins


def find(context: Context, key: str) -> Network:
    """Return the network of this exact VNI or description."""
    name = None if _VNI.fullmatch(key) else context.store.get(NetworkName, key)
    network = context.store.get(Network, name.vni if name else key)
    if network is None:
        raise NotFound("network", key)
    return network


def by_bridge(context: Context, bridge: str) -> Network | None:
    """Return the network whose bridge has this name, if any."""
    match = _BRIDGE.fullmatch(bridge)
    network = context.store.get(Network, int(match[1])) if match else None
    return network if network and network.bridge == bridge else None


def usable(context: Context, bridges: Iterable[str]) -> list[Check]:
    """Return checks to write together with a new use of these bridges, so that it fails if a network is removed.

    Raises `Invalid` for a bridge whose network does not exist or is being removed. Other names are ignored.
    """
    networks: dict[int, Network] = {}
    for bridge in bridges:
        network = by_bridge(context, bridge)
        if network is None:
            if _BRIDGE.fullmatch(bridge):
                raise Invalid(f"Cannot use bridge {bridge!r}: there is no network {bridge[4:]}.")
        elif network.removing:
            raise Invalid(f"Cannot use bridge {bridge!r}: {network} is being removed.")
        else:
            networks[network.vni] = network
    return [Check(networks[vni]) for vni in sorted(networks)]


def mac_of(context: Context, network: Network, address: Address) -> str | None:
    """Return the host of an address, by a static or an unexpired lease."""
    reserved = context.store.get(Reservations, network.vni)
    for each in reserved.reservations if reserved else ():
        if each.address == address:
            return each.mac
    lease = context.store.get(Lease, network.vni, address)
    return lease.mac if lease and lease.expires > context.clock.time() else None


# Networks


def find_managed(context: Context, key: str) -> Network:
    """Return a network whose leases or ACLs can be changed."""
    network = find(context, key)
    if network.kind is Kind.BRIDGED:
        raise Conflict(
            f"Cannot change leases or ACLs of {network}: it is bridged and has none.", code="network-not-managed"
        )
    if network.removing:
        raise Conflict(f"Cannot change leases or ACLs of {network}: it is being removed.", code="network-removing")
    return network


def need(context: Context, kind: type[R], *keys: object) -> R:
    """Return a record that exists with its network; raises `Changed` if a new one is not known here yet."""
    record = context.store.get(kind, *keys)
    if record is None:
        raise Changed(kind.at(*keys))
    return record


def get_network(context: Context, key: str) -> NetworkList:
    """Return one network, as a list of one."""
    return context[NETWORKS].one(find(context, key))


def list_networks(context: Context, limit: str | None) -> NetworkList:
    """List the networks whose description or VNI matches a limit, sorted by description."""
    view = context[NETWORKS]
    return view.all() if limit is None else view.filter(limit, lambda network: True)


@retried
async def create(context: Context, vni: int, description: str, kind: Kind, options: Options) -> Message:
    """Write a new network with its name and, if it is managed, empty records for static leases and ACLs."""
    if sentence := wrong(vni, kind):
        raise Invalid(sentence)
    network = Network(vni=vni, description=description, kind=kind)
    if context.store.get(Network, vni):
        raise Conflict(f"Cannot create {network}: there is a network with VNI {vni} already.", code="network-exists")
    _refuse_taken(context, network)
    network, warnings = define(network, options)
    changes: list[Change] = [Create(network), Create(NetworkName(description=description, vni=vni))]
    if kind is Kind.MANAGED:
        changes += [Create(Reservations(vni=vni)), Create(Acls(vni=vni)), *plan.claiming(context, network)]
    if any(lease.vni == vni for lease in context.store.all(Lease)) and not await context.store.read(Network, vni):
        await leases.remove_all(context, vni)  # of an earlier network, written while that was removed
    await context.store.write(*changes)
    return Message(message=f"Network {description!r} created (VNI {vni}).", warnings=warnings or None)


def _refuse_taken(context: Context, network: Network) -> None:
    """Refuse a description that another network has."""
    name = context.store.get(NetworkName, network.description)
    if name is not None and name.vni != network.vni:
        raise Conflict(
            f"Cannot use description {name.description!r}: network {name.vni} has it.", code="network-exists"
        )


@retried
async def modify(context: Context, key: str, description: str | None, options: Options) -> Message:
    """Change the given values, if the result is valid as a whole. This also cancels an interrupted removal."""
    network = find(context, key)
    if description is None and not options.given and not network.removing:
        raise Invalid(f"Cannot modify {network}: no value was given.")
    renamed = network.changed(description=description or network.description, removing=False)
    changed, warnings = define(renamed, options)
    changes: list[Change] = [Put(changed), *plan.claiming(context, changed)]
    if changed.description != network.description:
        _refuse_taken(context, changed)
        changes.append(Delete(need(context, NetworkName, network.description)))
        changes.append(Create(NetworkName(description=changed.description, vni=network.vni)))
    if (changed.ip4_network, changed.ip4_gateway) != (network.ip4_network, network.ip4_gateway):
        changes.append(_keeping_reservations(context, changed))
    await context.store.write(*changes)
    return Message(message=f"Network {changed.description!r} modified.", warnings=warnings or None)


def _keeping_reservations(context: Context, network: Network) -> Check:
    """Refuse addresses that do not fit the existing static leases."""
    held = need(context, Reservations, network.vni)
    for each in held.reservations:
        reason = no_address_for_hosts(network, each.address)
        if reason:
            raise Conflict(
                f"Cannot modify {network}: the static lease {each.mac} -> {each.address} {reason}. Remove it first.",
                code="lease-outside-network",
            )
    return Check(held)


# Removal


async def remove(context: Context, key: str) -> Message:
    """Remove an unused network with all that belongs to it.

    It is marked first, so that new uses are refused; then all plugins are asked for users; then it is removed. If this
    is interrupted the network stays marked: the request can be repeated, and any modification keeps the network.
    """
    network = await _mark(context, key)
    async with contextlib.AsyncExitStack() as undo:
        undo.push_async_callback(_keep, context, network)
        await _refuse_used(context, network)
        undo.pop_all()
    await _forget(context, network)
    await leases.remove_all(context, network.vni)
    return Message(message=f"Network {network.description!r} removed.")


@retried
async def _mark(context: Context, key: str) -> Network:
    """Refuse new uses of a network. When this returns, all earlier ones are known here."""
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
        shown = ", ".join(users[:MAX_SHOWN_USERS])
        more = f" and {len(users) - MAX_SHOWN_USERS} more" if len(users) > MAX_SHOWN_USERS else ""
        raise Conflict(f"Cannot remove {network}: in use by {shown}{more}. Detach them first.", code="network-in-use")


@retried
async def _keep(context: Context, marked: Network) -> None:
    """Remove the mark, unless the network was changed meanwhile."""
    network = context.store.get(Network, marked.vni)
    if network is not None and network.serial == marked.serial:
        await context.store.write(Put(network.changed(removing=False)))


@retried
async def _forget(context: Context, marked: Network) -> None:
    """Remove all records of a network, unless it was changed after it was marked."""
    network = context.store.get(Network, marked.vni)
    if network is None:
        return
    if network.serial != marked.serial:
        raise Conflict(f"Cannot remove {network}: another request changed it meanwhile.", code="changed")
    records: list[Record] = [need(context, NetworkName, network.description), network]
    if network.kind is Kind.MANAGED:
        records += [need(context, Reservations, network.vni), need(context, Acls, network.vni)]
    await context.store.write(*map(Delete, records), *plan.releasing(context, network))
