"""What networks have for themselves alone: no two managed ones share addresses or a domain, however fast they come."""

from __future__ import annotations

from pvcd import Change, Conflict, Context, Create, Put
from pvcd_plugins.network.addresses import IpNetwork
from pvcd_plugins.network.bridge import Kind
from pvcd_plugins.network.records import Network, NodeNetwork, Plan, Planned, has_room


def taking(context: Context, network: Network) -> list[Change]:
    """The change by which a network takes what it needs, in one transaction with its own; none if it has that."""
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
            f"There are {len(plan.managed)} managed networks, and what they take fills the room that there is for it.",
            code="network-limit",
        )
    return [_write(changed)]


def giving_back(context: Context, network: Network) -> list[Change]:
    """The change by which a network that goes gives back what it has."""
    plan = context.store.get(Plan)
    if plan is None or network.vni not in plan.managed:
        return []
    return [Put(plan.changed(managed={vni: each for vni, each in plan.managed.items() if vni != network.vni}))]


def _write(plan: Plan) -> Change:
    return Create(plan) if plan.version is None else Put(plan)


def _refuse_shared(mine: Planned, vni: int, other: Planned) -> None:
    if mine.domain == other.domain:
        raise Conflict(
            f"The domain {mine.domain} is that of network {vni}, and its names must not mean two things.",
            code="domain-exists",
        )
    pairs: tuple[tuple[IpNetwork | None, IpNetwork | None], ...] = ((mine.ip4, other.ip4), (mine.ip6, other.ip6))
    for ours, theirs in pairs:
        if ours is not None and theirs is not None and ours.overlaps(theirs):
            raise Conflict(f"{ours} overlaps with {theirs} of network {vni}.", code="network-overlap")


def _refuse_addresses_of_nodes(context: Context, mine: Planned) -> None:
    """A gateway in the network that joins the nodes would cut them off from each other."""
    for node in context.store.all(NodeNetwork):
        for network in (mine.ip4, mine.ip6):
            if network is not None and node.address is not None and node.address in network:
                raise Conflict(
                    f"{network} holds {node.address}, at which other nodes reach node {node.node}.",
                    code="network-overlap",
                )
