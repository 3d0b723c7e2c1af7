"""Renders filters for nftables: the whole table `inet pvc`, replaced in one transaction.

Packets of other links cost one lookup in a map. Packets between two networks are filtered twice, on leaving and on
entering, in the chains of two hooks, so that an `accept` of one network does not bypass the rules of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pvcd import Failed, Invalid
from pvcd_plugins.network.bridge import bridge_name
from pvcd_plugins.network.firewall import Filter
from pvcd_plugins.network.firewall.rules import spelled

TABLE = "inet pvc"

REMOVAL = f"table {TABLE}\ndelete table {TABLE}\n"
"""The table is named first, so that it may be absent."""

NAMES = 53
"""DNS, asked with TCP and UDP."""
DATAGRAMS = (67, 123, 547)
"""DHCP, NTP and DHCPv6 servers of the node."""
METADATA = ("169.254.169.254", 80)

_KNOWN = "ct state established,related accept"
"""Established connections survive a change of the rules."""

_SERVICES = f"""\
  chain services {{
    {_KNOWN}
    meta l4proto {{ icmp, icmpv6 }} accept
    meta l4proto {{ tcp, udp }} th dport {NAMES} accept
    udp dport {{ {", ".join(map(str, DATAGRAMS))} }} accept
    ip daddr {METADATA[0]} tcp dport {METADATA[1]} accept
    drop
  }}
"""


@dataclass(frozen=True)
class Origin:
    """The rule of a network that a line comes from."""

    vni: int
    direction: str
    order: int
    rule: str

    def __str__(self) -> str:
        return f"rule {self.order} in direction {self.direction!r} of network {self.vni} ({self.rule!r})"


@dataclass(frozen=True)
class Ruleset:
    """The input of nftables, and the origins of its lines, counted from 1."""

    text: str
    origins: Mapping[int, Origin]


def ruleset(filters: Sequence[Filter]) -> Ruleset:
    """Render the table for these networks; raises `Failed` for an invalid rule."""
    if not filters:
        return Ruleset(REMOVAL, {})
    lines = [*REMOVAL.splitlines(), f"table {TABLE} {{"]
    chains = dict(_chains(filters))
    for name in chains:
        lines += [f"  chain {name} {{", f"    {_KNOWN}", "  }"]
    lines += _SERVICES.splitlines()
    lines += _hooks(filters)
    lines.append("}")
    origins: dict[int, Origin] = {}
    for name, rules in chains.items():
        # One line for each rule: its text can end neither the line nor the chain.
        for origin in rules:
            lines.append(f"add rule {TABLE} {name} {_sure(origin)}")
            origins[len(lines)] = origin
    return Ruleset("\n".join(lines) + "\n", origins)


def _chains(filters: Sequence[Filter]) -> Iterator[tuple[str, list[Origin]]]:
    """Yield the chains for the rules of users, by name."""
    for each in filters:
        for direction, rules in (("in", each.inward), ("out", each.outward)):
            if rules:
                origins = [Origin(each.vni, direction, order, rule) for order, rule in enumerate(rules)]
                yield f"net{each.vni}-{direction}", origins


def _hooks(filters: Sequence[Filter]) -> Iterator[str]:
    """Yield the base chains, which run after those of the host, so that the host's own refusals stay in force."""
    leaving = {bridge_name(each.vni): f"net{each.vni}-out" for each in filters if each.outward}
    entering = {bridge_name(each.vni): f"net{each.vni}-in" for each in filters if each.inward}
    bridges = ", ".join(f'"{bridge_name(each.vni)}"' for each in filters)
    yield from _hook("outward", "forward", 10, f"iifname {_map(leaving)}" if leaving else "")
    yield from _hook("inward", "forward", 20, f"oifname {_map(entering)}" if entering else "")
    yield from _hook("node", "input", 10, f"iifname {{ {bridges} }} jump services")


def _hook(name: str, hook: str, priority: int, rule: str) -> Iterator[str]:
    yield f"  chain {name} {{"
    yield f"    type filter hook {hook} priority filter + {priority}; policy accept;"
    if rule:
        yield f"    {rule}"
    yield "  }"


def _map(chains: Mapping[str, str]) -> str:
    """Render a map, which takes one lookup for any number of networks."""
    elements = ", ".join(f'"{bridge}" : jump {chain}' for bridge, chain in chains.items())
    return f"vmap {{ {elements} }}"


def _sure(origin: Origin) -> str:
    try:
        return spelled(origin.rule)
    except Invalid as error:
        raise Failed(f"Cannot load {origin}: {error.sentence}") from error
