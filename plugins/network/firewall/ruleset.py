"""Filters -> the text that makes nftables follow them: the table `inet pvc` as a whole, in one transaction.

What is not of our bridges meets nothing but one look into a map. What a guest sends to another network is asked for
twice, on leaving and on entering, in chains of two hooks: an `accept` of one network never speaks for the other.
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
"""DHCP, NTP and DHCPv6, which guests find at the node."""
METADATA = ("169.254.169.254", 80)

_KNOWN = "ct state established,related accept"
"""Whatever the rules say now, a connection goes on that was let in."""

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
    """Which rule of a network a line comes from."""

    vni: int
    direction: str
    number: int
    rule: str

    def __str__(self) -> str:
        return f"rule {self.number} of what goes {self.direction} network {self.vni} ({self.rule!r})"


@dataclass(frozen=True)
class Ruleset:
    """What is given to nftables, and where its lines come from, counted from 1."""

    text: str
    origins: Mapping[int, Origin]


def ruleset(filters: Sequence[Filter]) -> Ruleset:
    """The table for these networks. Raises `Failed` for a rule that cannot be one, however it came to be there."""
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
        # A line for each: what is in it can neither end the line nor the chain.
        for origin in rules:
            lines.append(f"add rule {TABLE} {name} {_sure(origin)}")
            origins[len(lines)] = origin
    return Ruleset("\n".join(lines) + "\n", origins)


def _chains(filters: Sequence[Filter]) -> Iterator[tuple[str, list[Origin]]]:
    """The chains that hold rules of users, by name."""
    for each in filters:
        for direction, way, rules in (("into", "in", each.inward), ("out of", "out", each.outward)):
            if rules:
                origins = [Origin(each.vni, direction, number, rule) for number, rule in enumerate(rules)]
                yield f"net{each.vni}-{way}", origins


def _hooks(filters: Sequence[Filter]) -> Iterator[str]:
    """The chains that packets come through; behind those of the host, whose refusals stand in any case."""
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
    """One look, however many networks there are."""
    elements = ", ".join(f'"{bridge}" : jump {chain}' for bridge, chain in chains.items())
    return f"vmap {{ {elements} }}"


def _sure(origin: Origin) -> str:
    try:
        return spelled(origin.rule)
    except Invalid as error:
        raise Failed(f"The firewall does not take {origin}: {error.sentence}") from error
