"""What is to be done about the links that are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_interface

from pvcd_plugins.network.bridge import Bridge, Gateway, Kind, uplink_name, with_router, wrong
from pvcd_plugins.network.bridge.links import Assigned, Link, Step
from pvcd_plugins.network.bridge.plan import (
    Underlay,
    Uplink,
    bridge_mac,
    flooding,
    holding,
    making,
    raising,
    tunnel,
    tunnel_mtu,
    underlay_address,
    vlan,
)

HERE = ip_address("10.99.0.1")
UNDERLAY = Underlay("up0", HERE, 4789, 1450)
UPLINK = tunnel(200, UNDERLAY)
DETAILS = {"id": 200, "local": "10.99.0.1", "port": 4789, "link": "up0", "learning": True}
THERE = {
    "vxlan200": Link(
        "vxlan200", ours=True, kind="vxlan", mtu=1450, up=True, master="vmbr200", device="up0", details=DETAILS
    ),
    "vmbr200": Link("vmbr200", ours=True, kind="bridge", mtu=1450, up=True),
}


def lines(steps: Iterable[Step]) -> list[str]:
    return [" ".join(step.words) for step in steps]


def with_link(**changes: object) -> dict[str, Link]:
    return THERE | {"vxlan200": replace(THERE["vxlan200"], **changes)}  # type: ignore[arg-type]


def assigned(text: str, **more: bool) -> Assigned:
    return Assigned(ip_interface(text), more.pop("scope", "global"), more.pop("forever", True), **more)  # type: ignore[arg-type]


def test_what_is_missing_is_made_and_marked_from_the_beginning() -> None:
    steps = list(making(200, UPLINK, {}))
    assert lines(steps) == [
        "link add name vxlan200 group 1886806884 type vxlan id 200 local 10.99.0.1 dstport 4789 dev up0",
        f"link add name vmbr200 address {UPLINK.mac} group 1886806884 type bridge stp_state 0 forward_delay 0",
        "link set dev vmbr200 alias pvcd mtu 1450",
        "link set dev vxlan200 alias pvcd mtu 1450 master vmbr200",
    ]
    assert [(step.makes, step.needs) for step in steps[:2]] == [("vxlan200", "vxlan"), ("vmbr200", "bridge")]
    assert lines(raising(200, UPLINK, {})) == ["link set dev vxlan200 up", "link set dev vmbr200 up"]


def test_what_is_as_it_should_be_is_left_alone() -> None:
    assert lines(making(200, UPLINK, THERE)) == lines(raising(200, UPLINK, THERE)) == []


def test_a_tunnel_of_another_make_is_made_anew() -> None:
    for details in ({"local": "10.99.0.2"}, {"id": 201}, {"port": 8472}):
        links = with_link(details=DETAILS | details)
        assert lines(making(200, UPLINK, links))[0] == "link del vxlan200"
        assert lines(making(200, UPLINK, links))[1].startswith("link add name vxlan200 ")
        assert lines(raising(200, UPLINK, links)) == ["link set dev vxlan200 up"]
    assert not UPLINK.fits(with_link(device="eth0")["vxlan200"])
    assert not UPLINK.fits(with_link(kind="vlan")["vxlan200"])


def test_what_is_wrong_with_a_link_is_put_right() -> None:
    assert lines(making(200, UPLINK, with_link(mtu=1400))) == ["link set dev vxlan200 mtu 1450"]
    assert lines(making(200, UPLINK, with_link(master=None))) == ["link set dev vxlan200 master vmbr200"]
    assert lines(raising(200, UPLINK, with_link(up=False))) == ["link set dev vxlan200 up"]


def test_a_vlan_is_made_on_its_device() -> None:
    uplink = vlan(100, Link("eth1", mtu=9000, mac="52:54:00:00:00:01"))
    assert " ".join(uplink.add) == "link add link eth1 name vlan100 group 1886806884 type vlan id 100"
    assert (uplink.needs, uplink.mtu, uplink.local) == ("8021q", 9000, None)
    assert uplink.fits(Link("vlan100", kind="vlan", device="eth1", details={"id": 100, "protocol": "802.1Q"}))


def test_the_flood_list_becomes_that_of_the_peers() -> None:
    old, stays, new = (ip_address(f"10.99.0.{number}") for number in (2, 3, 4))
    assert lines(flooding(200, "vxlan200", {stays, new}, {old, stays})) == [
        "fdb append 00:00:00:00:00:00 dev vxlan200 dst 10.99.0.4",
        "fdb del 00:00:00:00:00:00 dev vxlan200 dst 10.99.0.2",
    ]
    assert lines(flooding(200, "vxlan200", {stays}, {stays})) == []


def test_gateways_have_an_end_and_what_has_none_stays() -> None:
    addresses = (assigned("10.0.0.9/24"), assigned("10.0.0.8/24", forever=False), assigned("10.0.0.1/24"))
    wanted: list[Gateway] = [ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")]
    assert lines(holding(200, Link("vmbr200", addresses=addresses), wanted, 7.2)) == [
        "address del 10.0.0.8/24 dev vmbr200",
        "address replace 10.0.0.1/24 dev vmbr200 valid_lft 8 preferred_lft 8",
        "address replace fd00::1/64 dev vmbr200 valid_lft 8 preferred_lft 8 nodad",
    ]


def test_a_router_has_an_address_of_its_link() -> None:
    assert with_router([ip_interface("10.0.0.1/24")]) == {ip_interface("10.0.0.1/24")}
    assert ip_interface("fe80::1/64") in with_router([ip_interface("fd00::1/64")])


def test_every_node_and_network_has_a_mac_of_its_own_that_stays() -> None:
    macs = {bridge_mac(node, vni) for node in ("10.99.0.1", "10.99.0.2", "fd00::1") for vni in range(1, 300)}
    assert len(macs) == 3 * 299 and bridge_mac("10.99.0.1", 200) == UPLINK.mac
    assert all(int(mac[:2], 16) & 0x03 == 0x02 and len(mac) == 17 for mac in macs)


def test_tunnels_begin_at_an_address_that_others_can_reach() -> None:
    six, four, other = assigned("fd00::1/64"), assigned("10.99.0.1/24"), assigned("10.99.0.9/24")
    tentative = replace(assigned("fd00::7/64"), usable=False)
    local = replace(assigned("fe80::7/64"), scope="link")
    assert underlay_address(Link("up0", addresses=(local, tentative, six, four, other))) == HERE
    assert underlay_address(Link("up0", addresses=(local, tentative, six))) == ip_address("fd00::1")
    assert underlay_address(Link("up0", addresses=(local, tentative))) is None
    loopback = replace(assigned("127.0.0.1/8"), scope="host")
    assert underlay_address(Link("lo", addresses=(loopback,))) == ip_address("127.0.0.1")
    assert underlay_address(Link("up0", addresses=(loopback,))) is None


def test_the_mtu_leaves_room_for_the_tunnel() -> None:
    six = ip_address("fd00::1")
    assert tunnel_mtu(Link("up0", mtu=9000), HERE, None) == 8950
    assert tunnel_mtu(Link("up0", mtu=1500), six, None) == 1430
    assert tunnel_mtu(Link("lo", mtu=65536), HERE, None) == 1450
    assert tunnel_mtu(Link("up0", mtu=9000), HERE, 1500) == 1450


def test_no_name_is_too_long_for_the_kernel() -> None:
    for bridge in (Bridge(2**24 - 1, Kind.MANAGED), Bridge(4094, Kind.BRIDGED)):
        assert wrong(bridge.vni, bridge.kind) is None and len(uplink_name(bridge)) <= 15
    assert wrong(2**24, Kind.MANAGED) and wrong(4095, Kind.BRIDGED) and wrong(-1, Kind.MANAGED)


def test_a_tunnel_over_ipv6_says_so() -> None:
    uplink: Uplink = tunnel(200, Underlay("up0", ip_address("fd00::1"), 4789, 1430))
    assert uplink.details["local6"] == "fd00::1" and "local" not in uplink.details
