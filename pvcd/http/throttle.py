"""Throttle: each wrong token from an address delays the next answer longer. A right token never waits."""

from __future__ import annotations

import logging
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from pvcd.clock import Clock

log = logging.getLogger(__name__)
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, MAX_DOUBLINGS = 0.1, 4.0, 10
FORGET_SECONDS = 600.0
MAX_SOURCES = 10_000


class Throttle:
    """Counts the wrong tokens of each address."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # the latest last

    async def failed(self, address: str | None) -> None:
        """Count a wrong token of an address; return when the answer may be sent."""
        source = _source(address)
        count = self._count(source)
        if count & (count - 1) == 0:  # 1, 2, 4, 8: the log must not fill
            log.warning("wrong tokens from %s: %d", source, count)
        await self._clock.sleep(min(FIRST_DELAY_SECONDS * 2.0 ** min(count - 1, MAX_DOUBLINGS), LONGEST_DELAY_SECONDS))

    def _count(self, source: str) -> int:
        now = self._clock.monotonic()
        while self._failures and next(iter(self._failures.values()))[1] < now - FORGET_SECONDS:
            self._failures.popitem(last=False)
        count = self._failures.pop(source, (0, now))[0] + 1
        self._failures[source] = count, now
        if len(self._failures) > MAX_SOURCES:
            self._failures.popitem(last=False)
        return count


def _source(address: str | None) -> str:
    """Return what is counted as one source: an IPv4 address, or an IPv6 network, as one host has all of it."""
    if address is None:
        return "a local socket"
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or IPv6Address(int(ip) >> 64 << 64)) + ("" if ip.ipv4_mapped else "/64")
    return str(ip)
