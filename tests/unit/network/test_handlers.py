"""What nodes do for networks, and what the primary does for their hosts, with fakes for all doors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import pytest

from pvcd import Create, assign_primary
from pvcd.declare.operations import SITE_HOOKS
from pvcd.sitehooks.fake import FakeHooks
from pvcd.testing import SimulatedCluster
from pvcd_plugins.network.bridge.fake import FakeBridges
from pvcd_plugins.network.components import BRIDGES, DHCP, DNS, FIREWALL
from pvcd_plugins.network.dhcp.fake import FakeDhcp
from pvcd_plugins.network.records import Lease

from .conftest import MANAGED

GATEWAY = IPv4Interface("10.20.0.1/24")
MAC = "52:54:00:00:00:01"


class Nodes(SimulatedCluster):
    """Two nodes, the first of which is primary."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        hooks = FakeHooks({"network-lease.post": self._hear})
        super().__init__(["hv1", "hv2"], replace={SITE_HOOKS: hooks.open}, without=["vm"])

    def _hear(self, told: Any) -> None:
        self.told.append(told["arguments"])

    def bridges(self, node: str) -> FakeBridges:
        found = self.agents[node][BRIDGES]
        assert isinstance(found, FakeBridges)
        return found

    def dhcp(self, node: str) -> FakeDhcp:
        found = self.agents[node][DHCP]
        assert isinstance(found, FakeDhcp)
        return found

    async def do(self, method: str, path: str, **values: Any) -> Any:
        reply = await self.request(method, f"/api/v1/network{path}", **values)
        assert reply.status == 200, reply.body
        await self.advance(0.1)
        return reply.json


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    cluster = Nodes()
    async with cluster:
        for number, name in enumerate(("hv1", "hv2"), 1):
            cluster.bridges(name).here = IPv4Address(f"10.0.0.{number}")
        await cluster.advance(120)
        yield cluster


async def test_every_node_makes_the_bridges_and_knows_the_others(nodes: Nodes) -> None:
    await nodes.do("POST", "", **MANAGED)
    for name, other in (("hv1", "10.0.0.2"), ("hv2", "10.0.0.1")):
        assert set(nodes.bridges(name).bridges) == {200}
        assert nodes.bridges(name).peers[200] == {IPv4Address(other)}
    await nodes.do("DELETE", "/app")
    assert nodes.bridges("hv1").bridges == nodes.bridges("hv2").bridges == {}


async def test_rules_reach_every_node_in_their_order(nodes: Nodes) -> None:
    await nodes.do("POST", "", **MANAGED)
    await nodes.do("POST", "/app/acl", description="b", direction="in", rule="drop")
    await nodes.do("POST", "/app/acl", description="a", direction="in", rule="tcp dport 22 accept", order="0")
    for name in ("hv1", "hv2"):
        (filter,) = nodes.agents[name][FIREWALL].filters  # type: ignore[attr-defined]
        assert filter.inward == ("tcp dport 22 accept", "drop") and filter.outward == ()


async def test_only_the_primary_has_the_gateway_and_serves(nodes: Nodes) -> None:
    await nodes.do("POST", "", **MANAGED)
    assert nodes.bridges("hv1").addresses(200) == {GATEWAY}
    assert nodes.bridges("hv2").addresses(200) == frozenset()
    (served,) = nodes.dhcp("hv1").served.values()
    assert (served.domain, served.ip4, served.mtu) == ("app.local", GATEWAY, 1450)
    with pytest.raises(LookupError):
        nodes.agents["hv2"][DHCP]
    await nodes.advance(600)
    assert nodes.bridges("hv1").addresses(200) == {GATEWAY}, "it is held for as long as the node is primary"


async def test_a_network_without_a_name_server_asks_the_one_for_all_networks(nodes: Nodes) -> None:
    await nodes.do("POST", "", **MANAGED)
    assert nodes.dhcp("hv1").served[200].name_servers == (IPv4Address("10.0.0.1"),)
    await nodes.do("PUT", "/app", name_server="9.9.9.9")
    assert nodes.dhcp("hv1").served[200].name_servers == (IPv4Address("9.9.9.9"),)


async def test_with_the_lease_goes_all_of_it(nodes: Nodes) -> None:
    await nodes.do("POST", "", **MANAGED)
    await nodes.do("POST", "/app/lease", macaddress=MAC, ipaddress="10.20.0.9", hostname="web")
    leased = await nodes.dhcp("hv1").request(200, "52:54:00:00:00:02", "dyn")
    assert leased is not None
    await assign_primary(nodes.api.store, "hv2")
    await nodes.advance(1)
    assert nodes.bridges("hv1").addresses(200) == frozenset()
    assert nodes.bridges("hv2").addresses(200) == {GATEWAY}
    assert nodes.dhcp("hv2").leased[200] == {leased.address: leased}
    assert [each.hostname for each in nodes.dhcp("hv2").served[200].reservations] == ["web"]
    zones = nodes.agents["hv2"][DNS].zones  # type: ignore[attr-defined]
    assert [zone.domain for zone in zones] == ["app.local"]


async def test_a_primary_that_is_cut_off_keeps_no_gateway(nodes: Nodes) -> None:
    await nodes.do("POST", "", **MANAGED)
    tree: Any = nodes.agents["hv1"].store.tree
    nodes.server.cut(tree)
    nodes.server.expire(tree.session)
    await nodes.advance(nodes.settings.zookeeper.session_timeout)
    assert nodes.bridges("hv1").addresses(200) == frozenset()
    assert nodes.bridges("hv2").addresses(200) == {GATEWAY}
    nodes.server.heal(tree)
    await nodes.advance(60)
    assert nodes.bridges("hv1").addresses(200) == frozenset()


async def test_leases_are_remembered_renewed_and_forgotten(nodes: Nodes) -> None:
    await nodes.do("POST", "", **MANAGED)
    dhcp = nodes.dhcp("hv1")
    leased = await dhcp.request(200, MAC, "web")
    await nodes.advance(0.1)
    assert leased is not None
    (lease,) = nodes.api.store.all(Lease)
    assert (lease.vni, lease.mac, lease.hostname, lease.address) == (200, MAC, "web", leased.address)
    await nodes.advance(3600)
    await dhcp.request(200, MAC, "web")
    await nodes.advance(1)
    (renewed,) = nodes.api.store.all(Lease)
    assert renewed.expires > lease.expires
    await dhcp.release(200, leased.address)
    await nodes.advance(1)
    assert nodes.api.store.all(Lease) == []


async def test_leases_that_nobody_would_end_are_forgotten(nodes: Nodes) -> None:
    await nodes.do("POST", "", **MANAGED)
    now = nodes.clock.time()
    past = Lease(vni=200, address=IPv4Address("10.20.0.101"), expires=now + 5)
    orphan = Lease(vni=999, address=IPv4Address("10.99.0.101"), expires=now + 1e6)
    await nodes.api.store.write(Create(past), Create(orphan))
    await nodes.advance(60)
    assert nodes.api.store.all(Lease) == []


async def test_what_a_node_cannot_do_is_shown_until_it_can(nodes: Nodes) -> None:
    nodes.bridges("hv2").broken[200] = "There is no room for it."
    nodes.dhcp("hv1").broken[200] = "Its server does not start."
    await nodes.do("POST", "", **MANAGED)
    (network,) = await nodes.do("GET", "/app")
    assert network["failed"] == {"hv1": "Its server does not start.", "hv2": "There is no room for it."}
    nodes.bridges("hv2").broken.clear()
    nodes.dhcp("hv1").broken.clear()
    await nodes.advance(120)
    (network,) = await nodes.do("GET", "/app")
    assert network["failed"] == {}


async def test_a_node_without_an_address_for_tunnels_says_so_and_makes_the_others(nodes: Nodes) -> None:
    nodes.bridges("hv2").here = None
    await nodes.do("POST", "", **MANAGED)
    await nodes.do("POST", "", vni="100", description="site", nettype="bridged")
    assert set(nodes.bridges("hv2").bridges) == {100}
    (network,) = await nodes.do("GET", "/app")
    assert "it has no address" in network["failed"]["hv2"]


async def test_hooks_are_told_of_leases_and_not_of_mere_renewals(nodes: Nodes) -> None:
    await nodes.do("POST", "", **MANAGED)
    dhcp = nodes.dhcp("hv1")
    for hostname in ("web", "web", "web2"):
        leased = await dhcp.request(200, MAC, hostname)
        await nodes.advance(5)
    assert leased is not None
    await dhcp.release(200, leased.address)
    lease = {"vni": 200, "address": str(leased.address), "mac": MAC}
    assert nodes.told == [
        {**lease, "action": "taken", "hostname": "web"},
        {**lease, "action": "taken", "hostname": "web2"},
        {**lease, "action": "ended", "hostname": "web2"},
    ]
