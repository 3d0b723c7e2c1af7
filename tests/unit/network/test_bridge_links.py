"""What is understood of that which `ip` and `bridge` tell."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from pvcd import programs
from pvcd.programs.runner import Result
from pvcd_plugins.network.bridge.links import Batch, Step, failure, floods_of, links_of

TUNNEL = {
    **{"ifname": "vxlan200", "flags": ["BROADCAST", "UP"], "mtu": 1450, "master": "vmbr200", "group": "1886806884"},
    **{"address": "c6:72:dc:3e:cd:85", "ifalias": "pvcd"},
    "linkinfo": {"info_kind": "vxlan", "info_data": {"id": 200, "local": "10.99.0.1", "link": "up0", "port": 4789}},
}
UP0 = {"ifname": "up0", "flags": [], "mtu": 1500, "group": "default", "link_index": 2, "link_netnsid": 0}


def test_a_link_is_understood() -> None:
    found = links_of([TUNNEL, UP0], [])
    tunnel = found["vxlan200"]
    assert (tunnel.kind, tunnel.mtu, tunnel.up, tunnel.master, tunnel.device) == ("vxlan", 1450, True, "vmbr200", "up0")
    assert tunnel.details["id"] == 200 and tunnel.mac == "c6:72:dc:3e:cd:85"
    assert not found["up0"].up and found["up0"].device is None and found["up0"].kind == ""


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({}, True),
        ({"ifalias": None}, True),
        ({"group": "default"}, True),
        ({"group": "1886806885", "ifalias": None}, True),
        ({"group": "default", "ifalias": None}, False),
        ({"group": "default", "ifalias": "pvcd's neighbour"}, False),
    ],
)
def test_ours_bear_a_mark(changes: dict[str, Any], ours: bool) -> None:
    assert links_of([TUNNEL | changes], [])["vxlan200"].ours is ours


def test_addresses_are_understood() -> None:
    forever = {"family": "inet", "local": "10.99.0.1", "prefixlen": 24, "scope": "global", "valid_life_time": 2**32 - 1}
    ending = {"family": "inet6", "local": "fd00::1", "prefixlen": 64, "scope": "global", "valid_life_time": 19}
    told: list[dict[str, Any]] = [
        {"ifname": "up0", "addr_info": [forever, ending, ending | {"tentative": True}]},
        {"ifname": "gone"},
    ]
    first, second, third = links_of([UP0], told)["up0"].addresses
    assert first.interface == ip_interface("10.99.0.1/24") and first.forever and first.usable
    assert second.interface == ip_interface("fd00::1/64") and not second.forever
    assert not third.usable


def test_flood_entries_are_understood_and_learned_ones_are_none() -> None:
    zero = "00:00:00:00:00:00"
    entries = [
        {"mac": zero, "ifname": "vxlan200", "dst": "10.99.0.2", "flags": ["self"], "state": "permanent"},
        {"mac": zero, "ifname": "vxlan200", "dst": "10.99.0.3", "flags": ["self"], "state": "permanent"},
        {"mac": "52:54:00:00:00:01", "ifname": "vxlan200", "dst": "10.99.0.4", "flags": ["self"]},
        {"mac": "33:33:00:00:00:01", "ifname": "up0", "flags": ["self"], "state": "permanent"},
    ]
    assert floods_of(entries) == {"vxlan200": {ip_address("10.99.0.2"), ip_address("10.99.0.3")}}


@pytest.mark.parametrize(
    ("errors", "line", "reason"),
    [
        ("Error: Unknown device type.\nCommand failed -:3\n", 3, "Unknown device type"),
        ("RTNETLINK answers: File exists\nCommand failed -:1\n", 1, "File exists"),
        ("Warning: something else\nError: No.\nCommand failed -:12\n", 12, "No"),
        ('Cannot find device "up7"\n', None, 'Cannot find device "up7"'),
        ("", None, "no reason was given"),
    ],
)
def test_where_and_why_a_batch_stopped(errors: str, line: int | None, reason: str) -> None:
    assert failure(errors) == (line, reason)


class Kernel:
    """Takes lines as `ip -batch` does; those that hold one of the words are refused."""

    def __init__(self, refused: dict[str, str], *, tells: bool = True) -> None:
        self.runs: list[list[str]] = []
        self._refused = refused
        self._tells = tells

    async def __call__(self, argv: Any, *, input: bytes, **_: Any) -> Result:
        taken: list[str] = []
        self.runs.append(taken)
        for number, line in enumerate(input.decode().splitlines(), 1):
            for word, why in self._refused.items():
                if word in line:
                    told = f"Command failed -:{number}\n" if self._tells else ""
                    return Result(1, b"", f"Error: {why}.\n{told}".encode())
            taken.append(line)
        return Result(0, b"", b"")


def steps(*vnis: int, needs: str = "") -> list[Step]:
    return [Step(vni, (word, str(vni)), f"{word}{vni}", needs) for vni in vnis for word in ("one", "two", "three")]


async def test_after_a_failure_the_other_networks_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel({"two 2": "Busy", "one 4": "Busy"})
    monkeypatch.setattr(programs, "run", kernel)
    batch = Batch("Cannot create bridge {!r}")
    await batch.take("ip", steps(1, 2, 3, 4, 5))
    sentences = {vni: f"Cannot create bridge 'vmbr{vni}': Busy." for vni in (2, 4)}
    assert batch.failures == sentences
    assert batch.made == {
        **{vni: [f"one{vni}", f"two{vni}", f"three{vni}"] for vni in (1, 3, 5)},
        2: ["one2"],
    }
    taken = [line for run in kernel.runs for line in run]
    assert len(taken) == len(set(taken)) == 10 and "three 2" not in taken
    await batch.take("ip", steps(2, 4))
    assert len(kernel.runs) == 3


async def test_what_the_kernel_does_not_know_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel({"one 1": "Unknown device type"})
    monkeypatch.setattr(programs, "run", kernel)
    batch = Batch("Cannot create bridge {!r}")
    await batch.take("ip", steps(*range(10, 20), needs="8021q") + steps(7))
    assert len(kernel.runs) == 2 and batch.failures.keys() == set(range(10, 20)) and 7 in batch.made
    assert "lacks the module '8021q'" in batch.failures[15]


async def test_a_batch_that_ends_without_a_line_fails_what_it_held(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel({"two 2": "Odd"}, tells=False)
    monkeypatch.setattr(programs, "run", kernel)
    batch = Batch("Cannot create bridge {!r}")
    await batch.take("ip", steps(1, 2))
    assert batch.failures.keys() == {1, 2} and len(kernel.runs) == 1
