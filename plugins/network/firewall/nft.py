"""The packet filter of the kernel, by `nft`. Rules are checked in temporary namespaces.

Changes of our table by other programs are noticed cheaply: the kernel counts the changes of all tables, and only if
that number has moved is our table listed and compared.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from pvcd import Failed, TimedOut, programs
from pvcd_plugins.network.firewall import Filter
from pvcd_plugins.network.firewall.rules import complaint, judge, printable, scratch, spelled
from pvcd_plugins.network.firewall.ruleset import TABLE, Ruleset, ruleset

CHECK_SECONDS = 5.0
LOAD_SECONDS = 30.0
MAX_PARALLEL_CHECKS = 4

_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
_OWN_USER = ("unshare", "--map-root-user", "--net")
_NET_ADMIN = tuple(f"--{kind}=-all,+net_admin" for kind in ("inh-caps", "ambient-caps", "bounding-set"))
_DESCRIPTORS = range(4, 8)
"""Limits of open files for nft, so low that none is left for resolving a name."""

_LOAD_ERROR = re.compile(r"^/dev/stdin:(\d+):\S+ Error: (.+)$", re.MULTILINE)

_NETLINK_NETFILTER = 12
_NEW_GENERATION, _GET_GENERATION = 10 << 8 | 15, 10 << 8 | 16
_REQUEST = 1


@dataclass(frozen=True)
class _Loaded:
    """The state after our last load."""

    filters: tuple[Filter, ...]
    generation: int
    listing: bytes


class NftFirewall:
    """The packet filter of the namespace that this process runs in."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None
        self._lock = asyncio.Lock()
        self._checks = asyncio.Semaphore(MAX_PARALLEL_CHECKS)
        self._way: Sequence[str] | None = None
        self._search = asyncio.Lock()

    async def check(self, rule: str) -> str:
        """Return the text of a valid rule without surrounding blanks; raises `Invalid` for any other."""
        text = spelled(rule)
        async with self._checks:
            way = await self._found_way()
            result = await _read(way, text)
        if result.returncode:
            found = complaint(text, result.stderr.decode(errors="replace"))
            raise found or Failed(f"Cannot check the rule: {_first_line(result)}.")
        judge(json.loads(result.stdout))
        return text

    async def apply(self, filters: Collection[Filter]) -> None:
        """Replace all our filters by these in one step; without any, our table is removed."""
        wanted = tuple(sorted(filters, key=lambda each: each.vni))
        async with self._lock:
            if not await self._is_loaded(wanted):
                await self._load(wanted)

    async def _is_loaded(self, wanted: tuple[Filter, ...]) -> bool:
        """Return whether the table is as we loaded it, with these filters."""
        if self._loaded is None or self._loaded.filters != wanted:
            return False
        now = generation()
        if now == self._loaded.generation:
            return True
        if await _listing() != self._loaded.listing:
            return False
        # The next call notices a change since `now`.
        self._loaded = replace(self._loaded, generation=now)
        return True

    async def _load(self, wanted: tuple[Filter, ...]) -> None:
        rules = ruleset(wanted)
        self._loaded = None
        before = generation()
        result = await programs.run(("nft", "-f", "-"), input=rules.text.encode(), timeout=LOAD_SECONDS, check=False)
        if result.returncode:
            raise Failed(_refusal(rules, result))
        listing = await _listing()
        # Another program may have changed our table meanwhile: then the next call loads it again.
        if generation() == before + 1:
            self._loaded = _Loaded(wanted, before + 1, listing)

    async def _found_way(self) -> Sequence[str]:
        """Find once how rules can be checked safely on this machine."""
        async with self._search:
            if self._way is None:
                self._way = await _find_way()
            return self._way


async def _find_way() -> Sequence[str]:
    """Find the first way that accepts a plain rule and refuses one with a host name."""
    why = "names would be resolved"
    for way in _ways():
        fine = await _read(way, "accept")
        if fine.returncode:
            why = _first_line(fine)
        elif (await _read(way, "ip saddr localhost accept")).returncode:
            return way
    raise Failed(f"Cannot check rules on this machine: {why}.")


def _ways() -> Iterator[Sequence[str]]:
    """Yield prefixes for `nft`, safest first: as user nobody in own namespaces, or with only the right to networks."""
    for descriptors in _DESCRIPTORS:
        limit = ("prlimit", f"--nofile={descriptors}:{descriptors}")
        if os.geteuid():
            yield (*_OWN_USER, *limit)
        else:
            yield (*_NOBODY, *_OWN_USER, *limit)
            yield ("unshare", "--net", *_NOBODY, *_NET_ADMIN, "--no-new-privs", *limit)


async def _read(way: Sequence[str], text: str) -> programs.Result:
    """Let nftables parse a text. It is an argument, because the user nobody cannot open a pipe of root."""
    try:
        return await programs.run((*way, "nft", "-e", "-j", scratch(text)), timeout=CHECK_SECONDS, check=False)
    except TimedOut:
        raise TimedOut(f"Cannot check the rule: nftables did not answer within {CHECK_SECONDS:g} s.") from None


def _first_line(result: programs.Result) -> str:
    """Return the first line of a program's errors, or how it was killed."""
    if result.returncode < 0:
        return f"nft {programs.supervise.ending(result.returncode)}"
    return printable(result.stderr.decode(errors="replace").partition("\n")[0]) or "nft gave no reason"


async def _listing() -> bytes:
    """Return a digest of our table in the kernel, without counters."""
    result = await programs.run(
        ("nft", "-s", "-nn", "list", "table", *TABLE.split()), timeout=LOAD_SECONDS, check=False
    )
    return hashlib.sha256(result.stdout).digest()


def _refusal(rules: Ruleset, result: programs.Result) -> str:
    """Make the sentence for rules that nftables did not load."""
    error = _LOAD_ERROR.search(result.stderr.decode(errors="replace"))
    origin = rules.origins.get(int(error[1])) if error else None
    message = printable(error[2]) if error else _first_line(result)
    return f"Cannot load {origin or 'the rules'}: {message}. The previous rules stay in force."


def generation() -> int:
    """Ask the kernel how often any table of this namespace has been changed; it answers at once."""
    # nlmsghdr and nfgenmsg; the answer's first attribute (NFTA_GEN_ID) begins after 20 + 4 bytes.
    request = struct.pack("=IHHIIBBH", 20, _GET_GENERATION, _REQUEST, 1, 0, 0, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            netlink.send(request)
            answer = netlink.recv(4096, socket.MSG_DONTWAIT)
    except OSError as error:
        raise Failed(f"Cannot query the kernel's packet filter: {error.strerror}.") from error
    (kind,) = struct.unpack_from("=H", answer, 4)
    if kind != _NEW_GENERATION:
        (negative,) = struct.unpack_from("=i", answer, 16)
        raise Failed(f"Cannot query the kernel's packet filter: {os.strerror(-negative)}.")
    (number,) = struct.unpack_from(">I", answer, 24)
    return int(number)
