"""Throttle: whoever guesses tokens waits longer and longer for each answer. A right token never waits."""

from __future__ import annotations

import logging
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from pvcd.clock import Clock

log = logging.getLogger(__name__)
FIRST_DELAY, LONGEST_DELAY, DOUBLINGS = 0.1, 4.0, 10
FORGOTTEN_AFTER = 600.0
MOST_SOURCES = 10_000


class Throttle:
    """Counts the wrong tokens of each address."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # the latest last

    async def failed(self, address: str | None) -> None:
        """An address sent a wrong token: return when it may be told."""
        source = _source(address)
        count = self._count(source)
        if count & (count - 1) == 0:  # 1, 2, 4, 8: guessing must not fill the log
            log.warning("wrong tokens from %s: %d", source, count)
        await self._clock.sleep(min(FIRST_DELAY * 2.0 ** min(count - 1, DOUBLINGS), LONGEST_DELAY))

    def _count(self, source: str) -> int:
        now = self._clock.monotonic()
        while self._failures and next(iter(self._failures.values()))[1] < now - FORGOTTEN_AFTER:
            self._failures.popitem(last=False)
        count = self._failures.pop(source, (0, now))[0] + 1
        self._failures[source] = count, now
        if len(self._failures) > MOST_SOURCES:
            self._failures.popitem(last=False)
        return count


def _source(address: str | None) -> str:
    """Who sits at an address: of IPv6 everybody has a whole network."""
    if address is None:
        return "a local socket"
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or IPv6Address(int(ip) >> 64 << 64)) + ("" if ip.ipv4_mapped else "/64")
    return str(ip)
