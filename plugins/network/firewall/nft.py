"""The packet filter of the kernel, by `nft`. Rules are checked in namespaces that are thrown away.

Whether somebody has touched our table is seen at two prices: the kernel counts all changes of all tables, which costs
nothing to ask for; only where that number has moved is the table listed and compared.
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
CHECKS = 4
"""Rules that are checked side by side."""

_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
_OWN_USER = ("unshare", "--map-root-user", "--net")
_NET_ADMIN = tuple(f"--{kind}=-all,+net_admin" for kind in ("inh-caps", "ambient-caps", "bounding-set"))
_DESCRIPTORS = range(4, 8)
"""How few files nft may have open at once: so few that it has none left for looking up a name."""

_LOAD_ERROR = re.compile(r"^/dev/stdin:(\d+):\S+ Error: (.+)$", re.MULTILINE)

_NETLINK_NETFILTER = 12
_NEW_GENERATION, _GET_GENERATION = 10 << 8 | 15, 10 << 8 | 16
_REQUEST = 1


@dataclass(frozen=True)
class _Loaded:
    """What counts since our last load."""

    filters: tuple[Filter, ...]
    generation: int
    listing: bytes


class NftFirewall:
    """The packet filter of the namespace that this process runs in."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None
        self._lock = asyncio.Lock()
        self._checks = asyncio.Semaphore(CHECKS)
        self._way: Sequence[str] | None = None
        self._search = asyncio.Lock()

    async def check(self, rule: str) -> str:
        """The text of a rule as it may be stored; `Invalid` says what is wrong with it, in one sentence."""
        text = spelled(rule)
        async with self._checks:
            way = await self._found_way()
            result = await _read(way, text)
        if result.returncode:
            found = complaint(text, result.stderr.decode(errors="replace"))
            raise found or Failed(f"The rule could not be checked: {_first_line(result)}.")
        judge(json.loads(result.stdout))
        return text

    async def apply(self, filters: Collection[Filter]) -> None:
        """Let these count, and no others of ours, from one moment to the next; without any, our table is gone."""
        wanted = tuple(sorted(filters, key=lambda each: each.vni))
        async with self._lock:
            if not await self._counts(wanted):
                await self._load(wanted)

    async def _counts(self, wanted: tuple[Filter, ...]) -> bool:
        """Whether the table is there as we loaded it, with these filters."""
        if self._loaded is None or self._loaded.filters != wanted:
            return False
        now = generation()
        if now == self._loaded.generation:
            return True
        if await _listing() != self._loaded.listing:
            return False
        # A change since `now` is one that the next call finds.
        self._loaded = replace(self._loaded, generation=now)
        return True

    async def _load(self, wanted: tuple[Filter, ...]) -> None:
        rules = ruleset(wanted)
        self._loaded = None
        before = generation()
        result = await programs.run(("nft", "-f", "-"), input=rules.text.encode(), timeout=LOAD_SECONDS, check=False)
        if result.returncode:
            raise Failed(_refusal(rules, result.stderr.decode(errors="replace")))
        listing = await _listing()
        # Who else made a change meanwhile may have made it to our table: then it is loaded again by the next call.
        if generation() == before + 1:
            self._loaded = _Loaded(wanted, before + 1, listing)

    async def _found_way(self) -> Sequence[str]:
        """How rules can be read here without harm; found out once."""
        async with self._search:
            if self._way is None:
                self._way = await _find_way()
            return self._way


async def _find_way() -> Sequence[str]:
    """The first way in which a rule that is fine is accepted, and one that needs the name of a host is not."""
    why = "names would be looked up"
    for way in _ways():
        fine = await _read(way, "accept")
        if fine.returncode:
            why = _first_line(fine)
        elif (await _read(way, "ip saddr localhost accept")).returncode:
            return way
    raise Failed(f"Rules cannot be checked on this machine: {why}.")


def _ways() -> Iterator[Sequence[str]]:
    """What to put before `nft`, best first: nobody in namespaces of its own, or with no right but that to networks."""
    for descriptors in _DESCRIPTORS:
        limit = ("prlimit", f"--nofile={descriptors}:{descriptors}")
        if os.geteuid():
            yield (*_OWN_USER, *limit)
        else:
            yield (*_NOBODY, *_OWN_USER, *limit)
            yield ("unshare", "--net", *_NOBODY, *_NET_ADMIN, "--no-new-privs", *limit)


async def _read(way: Sequence[str], text: str) -> programs.Result:
    """Let nftables read a text. It is an argument, since nobody may open a pipe of root's."""
    try:
        return await programs.run((*way, "nft", "-e", "-j", scratch(text)), timeout=CHECK_SECONDS, check=False)
    except TimedOut:
        raise TimedOut(f"nftables did not say within {CHECK_SECONDS:g} s what it thinks of the rule.") from None


def _first_line(result: programs.Result) -> str:
    """What a program said when it failed for a reason of its own."""
    return printable(result.stderr.decode(errors="replace").partition("\n")[0]) or "nft does not say why"


async def _listing() -> bytes:
    """A digest of our table as it is in the kernel, without what it counts; the same whenever it is not there."""
    result = await programs.run(
        ("nft", "-s", "-nn", "list", "table", *TABLE.split()), timeout=LOAD_SECONDS, check=False
    )
    return hashlib.sha256(result.stdout).digest()


def _refusal(rules: Ruleset, errors: str) -> str:
    """One sentence for why nftables did not load the rules."""
    error = _LOAD_ERROR.search(errors)
    origin = rules.origins.get(int(error[1])) if error else None
    message = error[2] if error else errors.strip().partition("\n")[0] or "it does not say why"
    what = origin or "the rules of the networks"
    return f"nftables does not take {what}: {printable(message)}. What counted before still does."


def generation() -> int:
    """How often the tables of this namespace have been changed, by whomever; the kernel answers at once."""
    # nlmsghdr and nfgenmsg; the answer's first attribute (NFTA_GEN_ID) begins behind 20 + 4 bytes.
    request = struct.pack("=IHHIIBBH", 20, _GET_GENERATION, _REQUEST, 1, 0, 0, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            netlink.send(request)
            answer = netlink.recv(4096, socket.MSG_DONTWAIT)
    except OSError as error:
        raise Failed(f"The kernel's packet filter cannot be asked: {error.strerror}.") from error
    (kind,) = struct.unpack_from("=H", answer, 4)
    if kind != _NEW_GENERATION:
        (negative,) = struct.unpack_from("=i", answer, 16)
        raise Failed(f"The kernel's packet filter cannot be asked: {os.strerror(-negative)}.")
    (number,) = struct.unpack_from(">I", answer, 24)
    return int(number)
