"""A packet filter in memory, for tests and simulations. What is public beyond the protocol scripts it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from pvcd import Failed
from pvcd_plugins.network.firewall import Filter
from pvcd_plugins.network.firewall.rules import VERDICTS, spelled, undecided
from pvcd_plugins.network.firewall.ruleset import DATAGRAMS, METADATA, NAMES, Origin, ruleset

_RULE = re.compile(
    r"(?:(?P<protocol>tcp|udp) dport (?P<ports>[\d{} ,-]+) )?(?:counter )?(?P<verdict>accept|drop|reject|return)"
    r'(?: comment ".*")?'
)


class FakeFirewall:
    """Follows rules of the form `tcp dport 22 accept`; others can be set, but match no packet."""

    def __init__(self) -> None:
        self.filters: tuple[Filter, ...] = ()
        """The filters in force."""
        self.loads = 0
        """Number of changes."""
        self.unknown: set[str] = set()
        """Words of valid rules that this node cannot load."""
        self._loaded: tuple[Filter, ...] | None = None

    async def check(self, rule: str) -> str:
        """Return the text of a valid rule; raises `Invalid` for any other."""
        text = spelled(rule)
        if not set(re.sub(r'"[^"]*"', "", text).split()) & set(VERDICTS):
            raise undecided()
        return text

    async def apply(self, filters: Collection[Filter]) -> None:
        """Replace all our filters by these in one step; without any, our table is removed."""
        wanted = tuple(sorted(filters, key=lambda each: each.vni))
        if self._loaded == wanted:
            return
        for origin in ruleset(wanted).origins.values():
            self._load(origin)
        self._loaded = self.filters = wanted
        self.loads += 1

    def _load(self, origin: Origin) -> None:
        for word in self.unknown.intersection(origin.rule.split()):
            raise Failed(f"Cannot load {origin}: unknown word {word}. The previous rules stay in force.")

    def tamper(self) -> None:
        """Remove our table, as another program may."""
        self.filters, self._loaded = (), None
        self.loads += 1

    def passes(self, source: int | None, target: int | None, port: int, protocol: str = "tcp") -> bool:
        """Return whether a guest in one network can open a connection to one in another; None is a foreign network."""
        by_vni = {each.vni: each for each in self.filters}
        outward = by_vni[source].outward if source in by_vni else ()
        inward = by_vni[target].inward if target in by_vni else ()
        return _lets_pass(outward, port, protocol) and _lets_pass(inward, port, protocol)

    def admits(self, source: int | None, port: int, protocol: str = "tcp", address: str | None = None) -> bool:
        """Return whether a guest's packet reaches the node, at the gateway's address or another."""
        if all(each.vni != source for each in self.filters):
            return True
        if port == NAMES or (protocol == "udp" and port in DATAGRAMS):
            return True
        return protocol == "tcp" and (address, port) == METADATA


def _lets_pass(rules: Sequence[str], port: int, protocol: str) -> bool:
    for rule in rules:
        parts = _RULE.fullmatch(rule)
        if parts and parts["protocol"] in (None, protocol) and (not parts["ports"] or _holds(parts["ports"], port)):
            return parts["verdict"] in ("accept", "return")
    return True


def _holds(ports: str, port: int) -> bool:
    for each in ports.strip("{} ").split(","):
        first, _, last = each.partition("-")
        if int(first) <= port <= int(last or first):
            return True
    return False
