"""Throttle: check the tokens of an address that sent wrong ones in line, each after the pause that the last one earned.

Parallel requests would otherwise be as many guesses at once, and a right one would stand out by its early answer. So a
right token waits in line too, unless it was right from the same address before: its users do not notice that another
one behind their address guesses. Only these tokens can be guessed faster, and only by those who share the address of
their users; any long random token withstands that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from pvcd.clock import Clock
from pvcd.errors import TooManyAttempts
from pvcd.http.auth import Tokens

log = logging.getLogger(__name__)
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, MAX_DOUBLINGS = 0.1, 4.0, 10
FORGET_SECONDS = 600.0
MAX_SOURCES, MAX_KNOWN = 10_000, 10_000
MAX_WAITING = 10
"""Tokens in line of one address; any more are refused unseen."""


@dataclass(eq=False)
class _Line:
    """The wrong tokens of an address, and those that wait to be checked."""

    last: float
    """The time of the last wrong token."""
    wrong: int = 0
    next: float = 0.0
    """The time from which the next token is checked."""
    waiting: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Throttle:
    """Checks tokens, and counts the wrong ones of each address."""

    def __init__(self, clock: Clock, tokens: Tokens) -> None:
        self._clock, self._tokens = clock, tokens
        self._lines: OrderedDict[str, _Line] = OrderedDict()  # the one with the latest wrong token last
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()  # the one that was used last is the last

    async def match(self, address: str | None, token: str) -> str | None:
        """Return the fingerprint of a configured token, or None as soon as the answer to a wrong one may be sent.

        Raises `TooManyAttempts` if too many tokens of the address wait already.
        """
        source = _source(address)
        self._forget_old()
        line = self._lines.get(source)
        fingerprint = self._tokens.match(token)
        if fingerprint and (line is None or (source, fingerprint) in self._known):
            return self._accept(source, fingerprint)
        if line is None:
            line = self._lines[source] = _Line(self._clock.monotonic())
        if line.waiting >= MAX_WAITING:
            raise TooManyAttempts(
                f"Cannot check the token: {line.waiting} others from {source} wait, after wrong ones. "
                "Repeat the request in a minute."
            )
        return await self._match_in_line(source, line, token)

    async def _match_in_line(self, source: str, line: _Line, token: str) -> str | None:
        line.waiting += 1
        try:
            async with line.lock:
                await self._sleep_until(line.next)
                fingerprint = self._tokens.match(token)
                if fingerprint:
                    return self._accept(source, fingerprint)
                due = self._count_wrong(source, line)
        finally:
            line.waiting -= 1
        await self._sleep_until(due)
        return None

    def _count_wrong(self, source: str, line: _Line) -> float:
        """Count a wrong token; return the time at which it may be answered, and the next one checked."""
        line.wrong, line.last = line.wrong + 1, self._clock.monotonic()
        self._lines[source] = line
        self._lines.move_to_end(source)
        if len(self._lines) > MAX_SOURCES:
            self._lines.popitem(last=False)
        if line.wrong & (line.wrong - 1) == 0:  # 1, 2, 4, 8: the log must not fill
            log.warning("wrong tokens from %s: %d", source, line.wrong)
        delay = FIRST_DELAY_SECONDS * 2.0 ** min(line.wrong - 1, MAX_DOUBLINGS)
        line.next = line.last + min(delay, LONGEST_DELAY_SECONDS)
        return line.next

    def _accept(self, source: str, fingerprint: str) -> str:
        self._known[source, fingerprint] = None
        self._known.move_to_end((source, fingerprint))
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return fingerprint

    def _forget_old(self) -> None:
        end = self._clock.monotonic() - FORGET_SECONDS
        while self._lines and next(iter(self._lines.values())).last < end:
            self._lines.popitem(last=False)

    async def _sleep_until(self, time: float) -> None:
        remaining = time - self._clock.monotonic()
        if remaining > 0:
            await self._clock.sleep(remaining)


@lru_cache(maxsize=1000)
def _source(address: str | None) -> str:
    """Return what is counted as one source: an IPv4 address, or an IPv6 network, as one host has all of it."""
    if address is None:
        return "a local socket"
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or IPv6Address(int(ip) >> 64 << 64)) + ("" if ip.ipv4_mapped else "/64")
    return str(ip)
