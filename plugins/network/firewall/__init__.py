"""The door to this node's packet filter: what may pass into and out of each network."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

RULE_LENGTH = 1000
"""Characters that the text of one rule may have."""


@dataclass(frozen=True)
class Filter:
    """The rules of one managed network, in the order in which they are asked; each is the text of one nftables rule."""

    vni: int
    inward: tuple[str, ...] = ()
    """For what is forwarded to the network's bridge."""
    outward: tuple[str, ...] = ()
    """For what is forwarded from it."""


class Firewall(Protocol):
    """The packet filter of one node. Only the one table of ours is ever touched."""

    async def check(self, rule: str) -> str:
        """The text of a rule as it may be stored; `Invalid` says what is wrong with it, in one sentence.

        It is what was typed, without blanks around it. Nothing in it needs to be looked up: names are refused.
        """

    async def apply(self, filters: Collection[Filter]) -> None:
        """Let these count, and no others of ours, from one moment to the next; without any, our table is gone.

        Raises `Failed` where that cannot be, naming the rule and its network; then what counted before still does.
        """
