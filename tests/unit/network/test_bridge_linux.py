"""How many programs the door to the kernel's links runs, however many networks there are."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest

from pvcd.programs.runner import Result
from pvcd_plugins.network.bridge import Bridge, Kind, sysctls
from pvcd_plugins.network.bridge.links import FLOOD, GROUP
from pvcd_plugins.network.bridge.linux import LinuxBridges

PEER = "10.99.0.2"
WANTED = [Bridge(vni, Kind.MANAGED) for vni in range(200, 300)]
READS = ["bridge fdb show", "ip address show", "ip link show"]


class Programs:
    """Stands for `ip` and `bridge`: tells of links as they were given, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.batches: list[list[str]] = []
        info = {"local": "10.99.0.1", "prefixlen": 24, "scope": "global"}
        self.links: list[dict[str, Any]] = [{"ifname": "up0", "mtu": 1500}]
        self.addresses = [{"ifname": "up0", "addr_info": [info]}]
        self.fdb: list[dict[str, Any]] = []

    async def __call__(self, argv: tuple[str, ...], *, input: bytes | None = None, **_: Any) -> Result:
        words = " ".join(word for word in argv if word not in ("-j", "-d", "-"))
        self.asked.append(words)
        if input is not None:
            self.batches.append(input.decode().splitlines())
        told = dict(zip(READS, (self.fdb, self.addresses, self.links), strict=True)).get(words, [])
        return Result(0, json.dumps(told).encode(), b"")

    def have(self, bridge: Bridge) -> None:
        """Let a network be there as it should be."""
        vni, common = bridge.vni, {"mtu": 1450, "flags": ["UP"], "group": GROUP}
        data = {"id": vni, "local": "10.99.0.1", "port": 4789, "link": "up0"}
        tunnel = {"ifname": f"vxlan{vni}", "master": f"vmbr{vni}"}
        self.links += [
            {**tunnel, **common, "linkinfo": {"info_kind": "vxlan", "info_data": data}},
            {"ifname": f"vmbr{vni}", **common, "linkinfo": {"info_kind": "bridge", "info_data": {}}},
        ]
        self.fdb.append({"mac": FLOOD, "ifname": f"vxlan{vni}", "dst": PEER})


@pytest.fixture(name="programs")
def programs_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Programs:
    programs = Programs()
    monkeypatch.setattr("pvcd.programs.run", programs)
    monkeypatch.setattr(sysctls, "ROOT", tmp_path)
    return programs


async def test_a_hundred_networks_take_three_batches(programs: Programs) -> None:
    async with LinuxBridges("up0", None) as bridges:
        assert await bridges.apply(WANTED, [ip_address(PEER)]) == {}
    assert sorted(programs.asked[:3]) == READS
    assert programs.asked[3:] == ["ip -batch", "bridge -batch", "ip -batch"]
    assert [len(batch) for batch in programs.batches] == [400, 100, 200]


async def test_where_all_is_as_it_should_be_there_is_no_batch(programs: Programs) -> None:
    for bridge in WANTED:
        programs.have(bridge)
    async with LinuxBridges("up0", None) as bridges:
        assert await bridges.apply(WANTED, [ip_address(PEER)]) == {}
    assert sorted(programs.asked) == READS


async def test_a_hundred_gateways_take_one_batch(programs: Programs) -> None:
    for bridge in WANTED:
        programs.have(bridge)
    async with LinuxBridges("up0", None) as bridges:
        held = {bridge.vni: [ip_interface(f"10.0.{bridge.vni - 200}.1/24")] for bridge in WANTED}
        assert await bridges.hold(held, 20) == {}
    assert sorted(programs.asked) == ["ip -batch", "ip address show", "ip link show"]
    assert [len(batch) for batch in programs.batches] == [100]
