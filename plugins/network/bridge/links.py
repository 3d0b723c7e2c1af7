"""Reads and changes this node's links with `ip` and `bridge`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from typing import Any

from pvcd import programs
from pvcd_plugins.network.bridge import Address, Gateway, bridge_name

READ_SECONDS = 10.0
WRITE_SECONDS = 60.0
"""For a batch; the kernel needs about 10 ms to remove a link."""

ALIAS = "pvcd"
"""Marks our links for people."""
GROUP = "1886806884"
"""Marks our links for pvcd: its name as a number. Unlike an alias it is set in the step that creates the link."""
DOOMED = "1886806885"
"""The group of links to remove: the kernel removes a group faster than its links one by one."""

FOREVER = 2**32 - 1
FLOOD = "00:00:00:00:00:00"
_UNSUPPORTED = ("Unknown device type", "Operation not supported")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assigned:
    """An address of a link."""

    interface: Gateway
    scope: str
    forever: bool
    usable: bool = True
    """Neither tentative nor deprecated."""


@dataclass(frozen=True)
class Link:
    """A link of this node."""

    name: str
    ours: bool = False
    kind: str = ""
    mtu: int = 1500
    up: bool = False
    mac: str = ""
    master: str | None = None
    device: str | None = None
    """The link below it."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Properties of its kind."""
    addresses: tuple[Assigned, ...] = ()


@dataclass(frozen=True)
class Step:
    """One line of a batch."""

    vni: int
    words: tuple[str, ...]
    makes: str | None = None
    """The link that it creates."""
    needs: str = ""
    """The kernel module that it takes."""


async def look() -> dict[str, Link]:
    """Read all links, by name."""
    links, addresses = await asyncio.gather(_read("ip", "-d", "link", "show"), _read("ip", "address", "show"))
    return links_of(links, addresses)


async def floods() -> dict[str, set[Address]]:
    """Read by tunnel where broadcast frames are sent."""
    return floods_of(await _read("bridge", "fdb", "show"))


async def default_device() -> str | None:
    """Find the device of the default route."""
    for family in ("-4", "-6"):
        routes = [route for route in await _read("ip", family, "route", "show", "default") if "dev" in route]
        if routes:
            device: str = min(routes, key=lambda route: route.get("metric", 0))["dev"]
            return device
    return None


async def _read(program: str, *words: str) -> list[dict[str, Any]]:
    text = (await programs.run((program, "-j", *words), timeout=READ_SECONDS)).stdout
    # Without results some versions write nothing, others `[]` or `[{}]`.
    return [each for each in json.loads(text.strip() or b"[]") if each]


def links_of(links: Sequence[Mapping[str, Any]], addresses: Sequence[Mapping[str, Any]]) -> dict[str, Link]:
    """Parse the output of `ip -j`."""
    infos = {each["ifname"]: each.get("addr_info", ()) for each in addresses}
    return {each["ifname"]: _link(each, infos.get(each["ifname"], ())) for each in links}


def _link(told: Mapping[str, Any], infos: Collection[Mapping[str, Any]]) -> Link:
    details = told.get("linkinfo", {}).get("info_data", {})
    return Link(
        name=told["ifname"],
        ours=told.get("group") in (GROUP, DOOMED) or told.get("ifalias") == ALIAS,
        kind=told.get("linkinfo", {}).get("info_kind", ""),
        mtu=told["mtu"],
        up="UP" in told.get("flags", ()),
        mac=told.get("address", ""),
        master=told.get("master"),
        device=told.get("link") or details.get("link"),
        details=details,
        addresses=tuple(_assigned(info) for info in infos if "local" in info),
    )


def _assigned(info: Mapping[str, Any]) -> Assigned:
    return Assigned(
        interface=ip_interface(f"{info['local']}/{info['prefixlen']}"),
        scope=info.get("scope", ""),
        forever=info.get("valid_life_time", FOREVER) == FOREVER,
        usable=not any(info.get(flag) for flag in ("tentative", "dadfailed", "deprecated", "temporary")),
    )


def floods_of(entries: Sequence[Mapping[str, Any]]) -> dict[str, set[Address]]:
    """Parse the output of `bridge -j` for `floods`."""
    found: dict[str, set[Address]] = {}
    for entry in entries:
        if entry.get("mac") == FLOOD and "dst" in entry:
            found.setdefault(entry["ifname"], set()).add(ip_address(entry["dst"]))
    return found


class Batch:
    """Runs steps with `ip` or `bridge`, and collects the links they made and why which network failed.

    `aim` begins the sentence of a failure: `Cannot create bridge {!r}`.
    """

    def __init__(self, aim: str) -> None:
        self.failures: dict[int, str] = {}
        """One sentence by VNI; no more steps are run for these."""
        self.made: dict[int, list[str]] = {}
        """Names of links by VNI."""
        self._aim = aim

    async def take(self, program: str, steps: Sequence[Step]) -> None:
        """Run the steps in order. After one that fails, the others of its network are left out."""
        while steps := [step for step in steps if step.vni not in self.failures]:
            text = "".join(f"{' '.join(step.words)}\n" for step in steps).encode()
            result = await programs.run((program, "-batch", "-"), timeout=WRITE_SECONDS, input=text, check=False)
            if result.returncode == 0:
                self._note(steps)
                return
            line, reason = failure(result.stderr.decode(errors="replace"))
            if line is None:
                # It failed without naming a line.
                for step in steps:
                    self.fail(step.vni, reason)
                return
            self._note(steps[: line - 1])
            self._fail(steps[line - 1], reason, steps)
            steps = steps[line:]

    def fail(self, vni: int, reason: str) -> None:
        """Run no more steps for a network."""
        self.failures.setdefault(vni, f"{self._aim.format(bridge_name(vni))}: {reason}.")

    def _note(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step.makes:
                self.made.setdefault(step.vni, []).append(step.makes)

    def _fail(self, failed: Step, reason: str, steps: Sequence[Step]) -> None:
        if failed.needs and any(text in reason for text in _UNSUPPORTED):
            for step in steps:
                if step.needs == failed.needs:
                    self.fail(step.vni, f"this kernel lacks the module {failed.needs!r} ({reason})")
        else:
            self.fail(failed.vni, reason)


def failure(errors: str) -> tuple[int | None, str]:
    """Parse the error output of a batch: the line where it stopped, if it says so, and the reason."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    number = None
    if lines and lines[-1].startswith("Command failed -:"):
        number = int(lines.pop().rpartition(":")[2])
    reason = lines[-1] if lines else "no reason was given"
    return number, reason.removeprefix("Error: ").removeprefix("RTNETLINK answers: ").rstrip(".")[:300]


async def remove(names: Collection[str]) -> None:
    """Remove links; the next call retries those that cannot be removed now."""
    text = "".join(f"link set dev {name} group {DOOMED}\n" for name in names) + f"link del group {DOOMED}\n"
    result = await programs.run(
        ("ip", "-force", "-batch", "-"), timeout=WRITE_SECONDS, input=text.encode(), check=False
    )
    if result.returncode:
        _log.warning("cannot remove all of %s: %s", ", ".join(names), failure(result.stderr.decode())[1])
