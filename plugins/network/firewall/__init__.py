"""The door to this node's packet filter: which packets may enter and leave each network."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

MAX_RULE_LENGTH = 1000
"""In characters."""


@dataclass(frozen=True)
class Filter:
    """The rules of one managed network in order of evaluation; each is the text of one nftables rule."""

    vni: int
    inward: tuple[str, ...] = ()
    """For packets forwarded to the network's bridge."""
    outward: tuple[str, ...] = ()
    """For packets forwarded from it."""


class Firewall(Protocol):
    """The packet filter of one node. Only our own table is ever touched."""

    async def check(self, rule: str) -> str:
        """Return the text of a valid rule without surrounding blanks; raises `Invalid` for any other.

        Names of hosts, services and protocols are refused, because nodes may resolve them differently.
        """

    async def apply(self, filters: Collection[Filter]) -> None:
        """Replace all our filters by these in one step; without any, our table is removed.

        Raises `Failed` with the rule and its network if that is not possible; then the previous filters stay.
        """
