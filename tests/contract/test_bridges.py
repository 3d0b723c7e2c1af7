"""The contract of the door to a node's links, on the fake and on the kernel in network namespaces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from functools import partial
from ipaddress import ip_address, ip_interface

import pytest
from bridges import Bench, Host, Node, Wires, bench_fixture, until, wires_fixture  # noqa: F401

from pvcd.errors import Failed
from pvcd_plugins.network.bridge import ROUTER, Address, Bridge, Gateway, Kind

HERE, SECOND, THIRD = (ip_address(f"10.99.0.{number}") for number in (1, 2, 3))


def managed(*vnis: int) -> list[Bridge]:
    return [Bridge(vni, Kind.MANAGED) for vni in vnis]


def links(*vnis: int) -> set[str]:
    return {name for vni in vnis for name in (f"vmbr{vni}", f"vxlan{vni}")}


def gateways(*texts: str) -> list[Gateway]:
    return [ip_interface(text) for text in texts]


async def test_bridges_are_created_kept_and_removed(bench: Bench) -> None:
    for wanted in ((200,), (200, 201, 16777215), (201,), (201,), ()):
        assert await bench.bridges.apply(managed(*wanted), []) == {}
        assert await bench.links() == links(*wanted)


async def test_tunnels_lead_to_all_other_nodes_as_nodes_come_and_go(bench: Bench) -> None:
    rounds: list[Collection[Address]] = [[], [SECOND], [HERE, SECOND, THIRD], [THIRD], []]
    for peers in rounds:
        assert await bench.bridges.apply(managed(200, 201), peers) == {}
        for vni in (200, 201):
            assert await bench.peers(vni) == set(peers) - {HERE}


async def test_a_peer_of_another_address_family_is_reported_and_the_others_are_reached(bench: Bench) -> None:
    failures = await bench.bridges.apply(managed(200), [SECOND, ip_address("fd00::3")])
    assert failures == {200: "Cannot create a tunnel from 10.99.0.1 to fd00::3: one is IPv4 and the other IPv6."}
    assert await bench.peers(200) == {SECOND}


@pytest.mark.parametrize("name", ["vmbr200", "vxlan200"])
async def test_a_foreign_link_is_neither_used_nor_changed(bench: Bench, name: str) -> None:
    await bench.add_foreign(name)
    failures = await bench.bridges.apply(managed(200, 201), [SECOND])
    reason = "one that pvcd did not create has this name"
    assert failures == {200: f"Cannot create link {name!r}: {reason}. Remove or rename it."}
    assert await bench.links() == {name} | links(201)
    assert await bench.bridges.apply([], []) == {}
    assert await bench.links() == {name}


async def test_a_failed_network_leaves_nothing_and_does_not_block_others(bench: Bench) -> None:
    before = await bench.links()
    for vni in (201, 203):
        await bench.spoil(vni)
    foreign = await bench.links() - before
    for _ in range(2):
        failures = await bench.bridges.apply(managed(200, 201, 202, 203, 204), [SECOND])
        assert failures.keys() == {201, 203}
        for vni, sentence in failures.items():
            assert sentence.startswith(f"Cannot create bridge 'vmbr{vni}': ") and "VNI" in sentence
        assert await bench.links() == links(200, 202, 204) | foreign
        assert await bench.peers(204) == {SECOND}


async def test_impossible_vnis_are_refused(bench: Bench) -> None:
    wanted = [*managed(0, 2**24, 10**12), Bridge(4095, Kind.BRIDGED)]
    failures = await bench.bridges.apply([*wanted, *managed(200)], [])
    assert failures.keys() == {0, 2**24, 10**12, 4095}
    assert failures[0] == "vni of a managed network must be from 1 to 16777215; got 0."
    assert failures[4095] == "vni of a bridged network must be from 1 to 4094; got 4095."
    assert await bench.links() == links(200)


async def test_without_an_address_there_are_no_tunnels(bench: Bench) -> None:
    assert await bench.bridges.address() == HERE and await bench.bridges.mtu() == 1450
    await bench.lose_address()
    for ask in (bench.bridges.address, bench.bridges.mtu):
        with pytest.raises(Failed, match="Cannot create tunnels over link 'up0': it has no address"):
            await ask()
    failures = await bench.bridges.apply(managed(200), [])
    assert failures == {200: "Cannot create tunnels over link 'up0': it has no address that other nodes can reach."}


async def test_exactly_the_requested_gateways_exist(bench: Bench) -> None:
    await bench.bridges.apply(managed(200, 201), [])
    old, new = gateways("10.0.0.1/24", "fd00::1/64"), gateways("10.0.0.1/16", "10.0.0.2/24", "fd00::1/48")
    assert await bench.bridges.hold({200: old, 201: []}, 60) == {}
    assert await bench.addresses(200) == {*old, ROUTER} and await bench.addresses(201) == set()
    for _ in range(2):
        assert await bench.bridges.hold({200: new, 201: gateways("10.1.0.1/24")}, 60) == {}
        assert await bench.addresses(200) == {*new, ROUTER}
        assert await bench.addresses(201) == set(gateways("10.1.0.1/24"))
    assert await bench.bridges.hold({201: gateways("10.1.0.1/24")}, 60) == {}
    assert await bench.addresses(200) == set() and await bench.addresses(201) == set(gateways("10.1.0.1/24"))


async def test_gateways_expire_unless_renewed(bench: Bench) -> None:
    await bench.bridges.apply(managed(200, 201), [])
    await bench.bridges.hold({200: gateways("10.0.0.1/24", "fd00::1/64")}, 1)
    await bench.bridges.hold({200: gateways("10.0.0.1/24"), 201: gateways("10.1.0.1/24", "fd01::1/64")}, 60)
    await bench.bridges.hold({200: gateways("10.0.0.1/24"), 201: gateways("10.1.0.1/24", "fd01::1/64")}, 1)

    async def gone() -> bool:
        return not await bench.addresses(200) and not await bench.addresses(201)

    assert not await gone()
    await until(bench, gone, limit=10)
    await bench.bridges.hold({200: gateways("10.0.0.1/24")}, 60)
    assert await bench.addresses(200) == set(gateways("10.0.0.1/24"))


async def test_without_a_bridge_there_is_no_gateway(bench: Bench) -> None:
    await bench.bridges.apply(managed(200), [])
    failures = await bench.bridges.hold({200: gateways("10.0.0.1/24"), 999: gateways("10.9.0.1/24")}, 60)
    assert failures == {999: "Cannot set the gateway of bridge 'vmbr999': there is no such bridge."}
    assert await bench.addresses(200) == set(gateways("10.0.0.1/24"))


# What only the kernel can show


@pytest.fixture(name="node")
async def node_fixture(wires: Wires) -> Node:
    node = await wires.node("10.99.0.1/24")
    await node.start()
    return node


async def pair(wires: Wires, *vnis: int) -> tuple[Node, Node]:
    """Two nodes with networks between them."""
    nodes = await wires.node("10.99.0.1/24"), await wires.node("10.99.0.2/24")
    for node in nodes:
        await node.start()
        assert await node.bridges.apply(managed(*vnis), [HERE, SECOND]) == {}
    return nodes


async def test_applying_again_creates_nothing_anew(node: Node) -> None:
    async def identities() -> list[tuple[int, str]]:
        names = sorted(await node.links())
        return [((link := await node.link(name))["ifindex"], link["address"]) for name in names]

    await node.bridges.apply(managed(200), [SECOND])
    before = await identities()
    await node.bridges.apply(managed(200), [SECOND])
    await node.start()
    await node.bridges.apply(managed(200), [THIRD])
    assert await identities() == before


async def test_an_incomplete_network_is_completed(node: Node) -> None:
    await node.bridges.apply(managed(200), [SECOND])
    whole = await node.link("vmbr200"), await node.link("vxlan200")
    await node.ip("link del vmbr200")
    await node.ip("link set vxlan200 down")
    await node.ip("link set vxlan200 mtu 1300")
    await node.output("ip", "link", "set", "vxlan200", "alias", "")
    assert await node.bridges.apply(managed(200), [SECOND]) == {}
    bridge, uplink = await node.link("vmbr200"), await node.link("vxlan200")
    assert uplink["master"] == "vmbr200" and uplink["mtu"] == bridge["mtu"] == 1450
    assert bridge["address"] == whole[0]["address"] and uplink["ifindex"] == whole[1]["ifindex"]
    assert "UP" in bridge["flags"] and "UP" in uplink["flags"] and bridge["ifalias"] == "pvcd"
    assert await node.sysctl("ipv6/conf/vmbr200/disable_ipv6") == "1"


async def test_links_of_a_failed_bridge_are_removed(node: Node) -> None:
    await node.bridges.apply(managed(202), [SECOND])
    await node.ip("link del vmbr202")
    for vni in (201, 202):
        await node.ip(f"link property add dev up0 altname vmbr{vni}")
    failures = await node.bridges.apply(managed(200, 201, 202, 203), [SECOND])
    assert failures == {vni: f"Cannot create bridge 'vmbr{vni}': File exists." for vni in (201, 202)}
    assert await node.links() == links(200, 203) | {"vxlan202"}


async def test_the_node_itself_takes_no_part_in_a_network(node: Node) -> None:
    await node.bridges.apply(managed(200), [SECOND])
    for setting, value in (("vmbr200/disable_ipv6", "1"), ("vmbr200/accept_ra", "0"), ("vxlan200/disable_ipv6", "1")):
        assert await node.sysctl(f"ipv6/conf/{setting}") == value
    assert await node.addresses(200) == set()
    bridge = (await node.link("vmbr200"))["linkinfo"]["info_data"]
    assert (bridge["stp_state"], bridge["forward_delay"]) == (0, 0)
    for name in (await node.output("ls", "/proc/sys/net/bridge")).split():
        if name.startswith("bridge-nf-call-"):
            assert await node.sysctl(f"bridge/{name}") == "0"


async def test_other_links_of_the_node_stay_unchanged(node: Node) -> None:
    await node.ip("link add vmbrs type bridge")
    await node.ip("link add mine type vxlan id 7 local 10.99.0.1 dstport 4790 dev up0")
    before = await node.links(), await node.link("mine"), await node.link("up0")
    await node.bridges.apply(managed(200), [SECOND])
    await node.bridges.hold({200: gateways("10.0.0.1/24")}, 60)
    await node.bridges.apply([], [])
    assert (await node.links(), await node.link("mine"), await node.link("up0")) == before


async def test_foreign_addresses_of_a_bridge_stay(node: Node) -> None:
    await node.bridges.apply(managed(200), [])
    await node.bridges.hold({200: gateways("10.0.0.1/24", "fd00::1/64")}, 60)
    for address in ("10.0.0.9/24", "fd00::9/64"):
        await node.ip(f"address add {address} dev vmbr200")
    await node.bridges.hold({}, 60)
    assert await node.addresses(200) == set(gateways("10.0.0.9/24", "fd00::9/64"))


async def test_a_bridged_network_has_its_vlan_or_the_error_names_the_missing_module(node: Node) -> None:
    wanted = [Bridge(100, Kind.BRIDGED), Bridge(101, Kind.BRIDGED)]
    failures = await node.bridges.apply([*wanted, *managed(200)], [])
    if failures:
        assert failures.keys() == {100, 101} and await node.links() == links(200)
        assert all("this kernel lacks the module '8021q'" in sentence for sentence in failures.values())
    else:
        assert await node.links() == {"vmbr100", "vlan100", "vmbr101", "vlan101"} | links(200)
        vlan = await node.link("vlan100")
        assert (vlan["link"], vlan["master"], vlan["linkinfo"]["info_data"]["id"]) == ("up0", "vmbr100", 100)


async def test_a_bridged_network_requires_a_device(node: Node) -> None:
    for device, sentence in ((None, "vlan_device is not set"), ("up7", "There is no link 'up7' on this node.")):
        await node.start("up0", device)
        failures = await node.bridges.apply([Bridge(100, Kind.BRIDGED), *managed(200)], [])
        assert failures.keys() == {100} and sentence in failures[100]


async def test_the_default_device_has_the_default_route_or_is_the_loopback(node: Node) -> None:
    await node.start(None)
    assert str(await node.bridges.address()) == "127.0.0.1" and await node.bridges.mtu() == 1450
    assert await node.bridges.apply(managed(200), []) == {}
    await node.ip("route add default via 10.99.0.254")
    assert await node.bridges.address() == HERE
    await node.ip("route del default")
    assert await node.bridges.address() == HERE
    assert await node.bridges.apply(managed(200), []) == {}
    assert (await node.link("vxlan200"))["linkinfo"]["info_data"]["local"] == str(HERE)


async def test_tunnels_follow_the_address_and_the_bridge_stays(node: Node) -> None:
    await node.bridges.apply(managed(200), [SECOND])
    bridge = await node.link("vmbr200")
    await node.ip("address flush dev up0")
    await node.ip("address add 10.99.0.3/24 dev up0")
    assert await node.bridges.apply(managed(200), [SECOND]) == {}
    assert (await node.link("vxlan200"))["linkinfo"]["info_data"]["local"] == str(THIRD)
    assert await node.peers(200) == {SECOND}
    after = await node.link("vmbr200")
    assert (after["ifindex"], after["address"], after["operstate"]) == (bridge["ifindex"], bridge["address"], "UP")


async def test_networks_follow_the_mtu_of_the_device(node: Node) -> None:
    for mtu in (9000, 1400, 1500):
        await node.ip(f"link set up0 mtu {mtu}")
        assert await node.bridges.apply(managed(200), []) == {}
        assert {(await node.link(name))["mtu"] for name in links(200)} == {mtu - 50}
        assert await node.bridges.mtu() == mtu - 50


async def test_a_bridge_keeps_its_own_address_which_no_other_node_has(wires: Wires) -> None:
    first, second = await pair(wires, 200)
    before = (await first.link("vmbr200"))["address"]
    assert before != (await second.link("vmbr200"))["address"]
    for name in ("low", "high"):
        await first.ip(f"link add {name} address 00:00:00:00:00:01 type veth peer name {name}peer")
        await first.ip(f"link set {name} master vmbr200 up")
        assert (await first.link("vmbr200"))["address"] == before
        await first.ip(f"link del {name}")
    assert (await first.link("vmbr200"))["address"] == before


async def test_guests_of_one_network_reach_each_other_with_full_packets_and_those_of_another_do_not(
    wires: Wires,
) -> None:
    first, second = await pair(wires, 200, 201)
    here = await wires.guest(first, 200, "10.0.0.11/24", "fd00::11/64")
    there = await wires.guest(second, 200, "10.0.0.12/24", "fd00::12/64")
    await wires.guest(second, 201, "10.0.0.13/24")
    for address, header in (("10.0.0.12", 28), ("fd00::12", 48)):
        assert await here.pings(address) and await here.pings(address, 1450 - header)
    assert not await here.pings("10.0.0.13")
    await there.ip("link set eth0 mtu 1500")
    await here.ip("link set eth0 mtu 1500")
    assert not await here.pings("10.0.0.12", 1451 - 28)
    await first.bridges.apply(managed(200), [])
    await second.bridges.apply(managed(200), [])
    await here.ip("neigh flush dev eth0")
    assert not await here.pings("10.0.0.12")


async def test_tunnels_over_ipv6(wires: Wires) -> None:
    nodes = await wires.node("fd99::1/64"), await wires.node("fd99::2/64")
    for node in nodes:
        await node.start()
        assert await node.bridges.apply(managed(200), [ip_address("fd99::1"), ip_address("fd99::2")]) == {}
        assert await node.bridges.mtu() == 1430
    here = await wires.guest(nodes[0], 200, "10.0.0.11/24")
    await wires.guest(nodes[1], 200, "10.0.0.12/24")
    assert await here.pings("10.0.0.12", 1430 - 28)


@pytest.mark.alone
@pytest.mark.parametrize(("gateway", "guest"), [("10.0.0.1", "10.0.0.11/24"), ("fd00::1", "fd00::11/64")])
async def test_a_gateway_moves_and_guests_find_it_at_once(wires: Wires, gateway: str, guest: str) -> None:
    first, second = await pair(wires, 200)
    held = {200: gateways(f"{gateway}/{guest.partition('/')[2]}")}
    hosts = await wires.guest(first, 200, guest), await wires.guest(second, 200, guest.replace("11/", "12/"))
    family = "ipv6" if ":" in guest else "ipv4"
    await first.bridges.hold(held, 60)
    for host in hosts:
        # A learned entry stays forever unless it is replaced.
        await host.sysctl(f"{family}/neigh/eth0/base_reachable_time_ms", "86400000")
        assert await host.pings(gateway)
    for old, new in ((first, second), (second, first)):
        # The one that had it may be late to let it go.
        await new.bridges.hold(held, 60)
        await old.bridges.hold({}, 60)
        begun = time.monotonic()
        for host in hosts:
            await until(new, partial(host.pings, gateway), limit=4)
        assert time.monotonic() - begun < 4
        for host in hosts:
            assert await _neighbour(host, gateway) == (await new.link("vmbr200"))["address"]


async def _neighbour(host: Host, address: str) -> str:
    (entry,) = await host.show("ip", "-j", "neigh", "show", "to", address, "dev", "eth0")
    return str(entry["lladdr"])


@pytest.mark.alone
async def test_a_moved_gateway_is_no_longer_announced(wires: Wires) -> None:
    first, second = await pair(wires, 200)
    guest = await wires.guest(first, 200, "10.0.0.11/24")
    await guest.sysctl("ipv4/neigh/eth0/base_reachable_time_ms", "86400000")
    held = {200: gateways("10.0.0.1/24")}
    await first.bridges.hold(held, 60)
    assert await guest.pings("10.0.0.1")
    await first.bridges.hold({}, 60)
    await second.bridges.hold(held, 60)
    old, new = [str((await node.link("vmbr200"))["address"]) for node in (first, second)]

    async def moved() -> bool:
        seen = await _neighbour(guest, "10.0.0.1")
        return seen == new

    await until(second, moved, limit=4)
    end = time.monotonic() + 2.2
    while time.monotonic() < end:
        assert await _neighbour(guest, "10.0.0.1") != old
        await second.wait()


async def test_gateways_route_between_networks(wires: Wires) -> None:
    first, second = await pair(wires, 200, 201)
    await first.bridges.hold(
        {200: gateways("10.0.0.1/24", "fd00::1/64"), 201: gateways("10.1.0.1/24", "fd01::1/64")}, 60
    )
    here = await wires.guest(second, 200, "10.0.0.11/24", "fd00::11/64")
    there = await wires.guest(first, 201, "10.1.0.11/24", "fd01::11/64")
    for guest, number in ((here, 0), (there, 1)):
        await guest.ip(f"route add default via 10.{number}.0.1")
        await guest.ip("-6 route add default via fe80::1 dev eth0")
    for address in ("10.1.0.11", "fd01::11"):
        await until(first, partial(here.pings, address), limit=10)
    assert await first.sysctl("ipv4/conf/up0/forwarding") == "0"


async def test_a_node_that_becomes_a_router_still_accepts_router_advertisements(node: Node) -> None:
    await node.bridges.apply(managed(200), [])
    await node.bridges.hold({200: gateways("10.0.0.1/24")}, 60)
    assert await node.sysctl("ipv6/conf/all/forwarding") == "0"
    await node.sysctl("ipv6/conf/up0/accept_ra", "1")
    await node.bridges.hold({200: gateways("fd00::1/64")}, 60)
    assert await node.sysctl("ipv6/conf/all/forwarding") == "1"
    assert await node.sysctl("ipv6/conf/up0/accept_ra") == "2"
    assert await node.sysctl("ipv6/conf/vmbr200/accept_ra") == "0"


async def test_a_hundred_networks_and_their_gateways_are_created_quickly(node: Node) -> None:
    wanted = managed(*range(200, 300))
    for _ in range(2):
        # Takes 0.1 s where nothing else runs; how many programs it takes is tested elsewhere, whatever else runs.
        async with asyncio.timeout(10):
            assert await node.bridges.apply(wanted, [SECOND, THIRD]) == {}
    assert await node.links() == links(*range(200, 300))
    held = {each.vni: gateways(f"10.0.{each.vni - 200}.1/24", f"fd00:{each.vni}::1/64") for each in wanted}
    assert await node.bridges.hold(held, 60) == {}
    assert await node.addresses(299) == {*held[299], ROUTER}
