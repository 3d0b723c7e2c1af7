"""The rules for ACLs: one ordered record for each network, replaced as a whole."""

from __future__ import annotations

from typing import Literal

from pvcd import Check, Conflict, Context, Message, NotFound, Put, matcher, retried
from pvcd_plugins.network.components import FIREWALL
from pvcd_plugins.network.records import Acl, Acls, has_room
from pvcd_plugins.network.service import find, find_managed, need
from pvcd_plugins.network.views import AclView

Direction = Literal["in", "out"]
LISTS: dict[Direction, Literal["inward", "outward"]] = {"in": "inward", "out": "outward"}
"""The field of `Acls` for each direction."""


def list_acls(context: Context, network: str, limit: str | None, direction: Direction | None) -> list[AclView]:
    """List the ACLs of a network whose description matches a limit, in order of evaluation."""
    matches = matcher(limit)
    return [
        acl
        for acl in _acls(context, network)
        if matches((acl.description,)) and (direction is None or acl.direction == direction)
    ]


def get_acl(context: Context, network: str, description: str) -> list[AclView]:
    """Return the ACLs of this description, at most one for each direction."""
    return [acl for acl in _acls(context, network) if acl.description == description]


def _acls(context: Context, network: str) -> list[AclView]:
    acls = context.store.get(Acls, find(context, network).vni)
    return [
        AclView(direction=direction, order=order, description=acl.description, rule=acl.rule)
        for direction, field in LISTS.items()
        for order, acl in enumerate(getattr(acls, field) if acls else ())
    ]


async def add_acl(
    context: Context, network: str, description: str, direction: Direction, rule: str, order: int | None
) -> Message:
    """Check a rule and insert it at its place."""
    find_managed(context, network)
    acl = Acl(description=description, rule=await context[FIREWALL].check(rule))
    return await _insert(context, network, acl, direction, order)


@retried
async def _insert(context: Context, key: str, acl: Acl, direction: Direction, order: int | None) -> Message:
    network, field = find_managed(context, key), LISTS[direction]
    acls = need(context, Acls, network.vni)
    rules: list[Acl] = list(getattr(acls, field))
    if any(acl.description == other.description for other in rules):
        raise Conflict(
            f"Cannot add ACL {acl.description!r} to {network}: there is one in direction {direction!r} already.",
            code="acl-exists",
        )
    rules.insert(len(rules) if order is None else order, acl)
    changed = acls.changed(**{field: tuple(rules)})
    if not has_room(changed):
        raise Conflict(
            f"Cannot add ACL {acl.description!r} to {network}: the limit is reached with "
            f"{len(acls.inward) + len(acls.outward)} ACLs.",
            code="network-full",
        )
    await context.store.write(Put(changed), Check(network))
    place = f"direction {direction!r}, order {rules.index(acl)}"
    return Message(message=f"ACL {acl.description!r} added to {network} ({place}).")


@retried
async def remove_acl(context: Context, key: str, description: str, direction: Direction) -> Message:
    """Remove a rule; those after it move up."""
    network, field = find_managed(context, key), LISTS[direction]
    acls = need(context, Acls, network.vni)
    rules: tuple[Acl, ...] = getattr(acls, field)
    kept = tuple(acl for acl in rules if acl.description != description)
    if len(kept) == len(rules):
        raise NotFound("ACL", description)
    await context.store.write(Put(acls.changed(**{field: kept})), Check(network))
    return Message(message=f"ACL {description!r} removed from {network} (direction {direction!r}).")
