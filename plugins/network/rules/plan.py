"""Keeps addresses and domains of managed networks unique, also among requests at the same moment."""

from __future__ import annotations

from pvcd import Change, Conflict, Context, Delete, Put, Upsert
from pvcd_plugins.network.bridge import Kind
from pvcd_plugins.network.records import Network, NodeNetwork, Plan, Planned, has_room
from pvcd_plugins.network.rules.addresses import IpNetwork


def claiming(context: Context, network: Network) -> list[Change]:
    """Return the change that claims a network's addresses and domain, to be written in one transaction with it."""
    plan = context.store.get(Plan) or Plan()
    if network.kind is Kind.BRIDGED or network.domain is None:
        return []
    mine = Planned(domain=network.domain, ip4=network.ip4_network, ip6=network.ip6_network)
    if plan.managed.get(network.vni) == mine:
        return []
    for vni, other in plan.managed.items():
        if vni != network.vni:
            _refuse_shared(mine, vni, other)
    _refuse_addresses_of_nodes(context, mine)
    changed = plan.changed(managed=plan.managed | {network.vni: mine})
    if not has_room(changed):
        raise Conflict(
            f"Cannot claim addresses for {network}: the limit is reached with {len(plan.managed)} managed networks.",
            code="network-limit",
        )
    return [Upsert(changed)]


def releasing(context: Context, network: Network) -> list[Change]:
    """Return the change that releases a removed network's addresses and domain."""
    plan = context.store.get(Plan)
    if plan is None or network.vni not in plan.managed:
        return []
    others = {vni: each for vni, each in plan.managed.items() if vni != network.vni}
    return [Put(plan.changed(managed=others)) if others else Delete(plan)]


def _refuse_shared(mine: Planned, vni: int, other: Planned) -> None:
    if mine.domain == other.domain:
        raise Conflict(
            f"Cannot use domain {mine.domain!r}: network {vni} has it. Give another domain.", code="domain-exists"
        )
    pairs: tuple[tuple[IpNetwork | None, IpNetwork | None], ...] = ((mine.ip4, other.ip4), (mine.ip6, other.ip6))
    for ours, theirs in pairs:
        if ours is not None and theirs is not None and ours.overlaps(theirs):
            raise Conflict(f"Cannot use {ours}: it overlaps with {theirs} of network {vni}.", code="network-overlap")


def _refuse_addresses_of_nodes(context: Context, mine: Planned) -> None:
    """Refuse the network between the nodes: a gateway there would cut them off from each other."""
    for node in context.store.all(NodeNetwork):
        for network in (mine.ip4, mine.ip6):
            if network is not None and node.address is not None and node.address in network:
                raise Conflict(
                    f"Cannot use {network}: it contains {node.address}, the address of node {node.node!r}.",
                    code="network-overlap",
                )
