"""The endpoints of networks: what they take, what they refuse and what they show."""

from __future__ import annotations

from typing import Any

import pytest

from pvcd_plugins.network.records import Acls, Network, NetworkName, Plan, Reservations
from tests.unit.network.conftest import MANAGED, Networks

NO_IP4 = {"network": None, "gateway": None, "dhcp_flag": False, "dhcp_start": None, "dhcp_end": None}
NO_IP6 = {"network": None, "gateway": None, "dhcp_flag": False}
IP4 = {"ip4_network": "10.20.0.0/24", "ip4_gateway": "10.20.0.1"}


async def test_a_managed_network_is_created_and_shown_with_its_types(networks: Networks) -> None:
    reply = await networks.do("POST", "", **MANAGED, name_server=["10.20.0.53", "fd00::53"], ip6_network="fd00:20::/64")
    assert reply == {"message": "Network 'app' created (VNI 200)."}
    expected = {
        "vni": 200,
        "description": "app",
        "type": "managed",
        "domain": "app.local",
        "name_servers": ["10.20.0.53", "fd00::53"],
        "ip4": {
            "network": "10.20.0.0/24",
            "gateway": "10.20.0.1",
            "dhcp_flag": True,
            "dhcp_start": "10.20.0.100",
            "dhcp_end": "10.20.0.199",
        },
        "ip6": {"network": "fd00:20::/64", "gateway": "fd00:20::1", "dhcp_flag": True},
        "removing": False,
        "failed": {},
    }
    assert await networks.get("") == [expected]
    assert await networks.get("/200") == await networks.get("/app") == [expected]


async def test_a_bridged_network_ignores_what_only_a_managed_one_has(networks: Networks) -> None:
    reply = await networks.do("POST", "", **(MANAGED | {"vni": "100", "nettype": "bridged"}), name_server="10.0.0.1")
    assert reply["message"] == "Network 'app' created (VNI 100)."
    assert reply["warnings"] == [
        "Ignored, because a bridged network is only a VLAN: name_server, ip4_network, ip4_gateway, dhcp4, dhcp4_start, "
        "dhcp4_end."
    ]
    (shown,) = await networks.get("/100")
    assert (shown["type"], shown["domain"], shown["name_servers"]) == ("bridged", None, [])
    assert (shown["ip4"], shown["ip6"]) == (NO_IP4, NO_IP6)
    assert [networks.count(kind) for kind in (Network, NetworkName, Reservations, Acls, Plan)] == [1, 1, 0, 0, 0]


async def test_a_managed_network_needs_no_addresses(networks: Networks) -> None:
    assert await networks.create() == {"message": "Network 'app' created (VNI 200)."}
    (shown,) = await networks.get("/app")
    assert (shown["ip4"], shown["ip6"], shown["domain"]) == (NO_IP4, NO_IP6, "app.local")


async def test_an_empty_value_is_none(networks: Networks) -> None:
    empty = dict.fromkeys(("domain", "name_server", "ip4_network", "ip4_gateway", "ip6_network", "dhcp4_start"), "")
    assert "warnings" not in await networks.create(**empty)
    (shown,) = await networks.get("/app")
    assert (shown["ip4"], shown["ip6"], shown["domain"], shown["name_servers"]) == (NO_IP4, NO_IP6, "app.local", [])


async def test_the_list_is_sorted_and_limited_by_description_and_vni(networks: Networks) -> None:
    for vni, description in ((300, "web"), (200, "app"), (2000, "db")):
        await networks.create(vni, description)

    async def listed(**values: str) -> list[str]:
        return [each["description"] for each in await networks.get("", **values)]

    assert await listed() == ["app", "db", "web"]
    assert await listed(limit="b") == ["db", "web"]
    assert await listed(limit="^200") == ["app", "db"]
    assert await listed(limit="200$") == ["app"]
    assert await listed(limit="no") == []
    assert (await networks.refused("GET", "", limit="("))[0] == "invalid-value"


@pytest.mark.parametrize("key", ["ap", "app2", "APP", "20", "0200", "+200", "200.0", "2000", "%20200", "٢٠٠", "report"])
async def test_only_the_exact_vni_or_description_is_found(networks: Networks, key: str) -> None:
    await networks.create_app()
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/lease"), ("GET", "/dhcp"), ("GET", "/acl")):
        assert (await networks.refused(method, f"/{key}{path}"))[0] == "network-not-found"
    assert (await networks.refused("PUT", f"/{key}", domain="x"))[0] == "network-not-found"


@pytest.mark.parametrize(
    ("values", "code", "sentence"),
    [
        ({"vni": None}, "invalid-value", "The argument 'vni' is missing."),
        ({"description": None}, "invalid-value", "The argument 'description' is missing."),
        ({"nettype": None}, "invalid-value", "The argument 'nettype' is missing."),
        ({"nettype": "vlan"}, "invalid-value", "nettype must be one of bridged, managed; got 'vlan'."),
        ({"vni": "0"}, "invalid-value", "vni must be a whole number of at least 1 and at most 16777215; got '0'."),
        (
            {"vni": "16777216"},
            "invalid-value",
            "vni must be a whole number of at least 1 and at most 16777215; got '16777216'.",
        ),
        (
            {"vni": "4095", "nettype": "bridged"},
            "invalid-value",
            "vni of a bridged network must be from 1 to 4094; got 4095.",
        ),
        (
            {"description": "7"},
            "invalid-value",
            "description must not be only digits, which would be taken for a VNI; got '7'.",
        ),
        (
            {"description": "a_b"},
            "invalid-value",
            "domain must be given, because the default 'a_b.local' is not valid: it must be names of letters, "
            "digits and '-' with dots between them, such as app.example.",
        ),
        (
            {"ip4_gateway": None},
            "invalid-value",
            "ip4_network requires ip4_gateway: an address in 10.20.0.0/24 for the primary, such as 10.20.0.1.",
        ),
        ({"ip4_gateway": "10.21.0.1"}, "invalid-value", "ip4_gateway must be in 10.20.0.0/24; got 10.21.0.1."),
        (
            {"ip4_gateway": "10.20.0.0"},
            "invalid-value",
            "ip4_gateway must not be the address of 10.20.0.0/24 itself; got 10.20.0.0.",
        ),
        (
            {"ip4_gateway": "10.20.0.255"},
            "invalid-value",
            "ip4_gateway must not be the broadcast address of 10.20.0.0/24; got 10.20.0.255.",
        ),
        (
            {"ip4_gateway": "x"},
            "invalid-value",
            "ip4_gateway must be an IPv4 address, such as 10.20.0.1; got 'x'.",
        ),
        (
            {"ip4_network": "10.20.0.5/24"},
            "invalid-value",
            "ip4_network must be the network 10.20.0.0/24, not the address of a host in it; got '10.20.0.5/24'.",
        ),
        ({"ip4_network": None}, "invalid-value", "ip4_gateway requires ip4_network."),
        ({"dhcp4_start": None}, "invalid-value", "dhcp4 requires dhcp4_start and dhcp4_end."),
        ({"dhcp4_end": ""}, "invalid-value", "dhcp4 requires dhcp4_start and dhcp4_end."),
        (
            {"dhcp4": "no", "dhcp4_end": None},
            "invalid-value",
            "dhcp4_start requires dhcp4_end.",
        ),
        ({"dhcp4_end": "10.20.1.9"}, "invalid-value", "dhcp4_end must be in 10.20.0.0/24; got 10.20.1.9."),
        (
            {"dhcp4_end": "10.20.0.255"},
            "invalid-value",
            "dhcp4_end must not be the broadcast address of 10.20.0.0/24; got 10.20.0.255.",
        ),
        (
            {"dhcp4_start": "10.20.0.200"},
            "invalid-value",
            "dhcp4_start must not be after dhcp4_end 10.20.0.199; got 10.20.0.200.",
        ),
        (
            {"ip4_gateway": "10.20.0.150"},
            "invalid-value",
            "ip4_gateway must be outside the DHCP range 10.20.0.100 to 10.20.0.199; got 10.20.0.150.",
        ),
        ({"ip6_gateway": "fd00::1"}, "invalid-value", "ip6_gateway requires ip6_network."),
        (
            {"name_server": "10.20.0.1"},
            "invalid-value",
            "name_server must not be the network's own gateway; got 10.20.0.1.",
        ),
        (
            {"name_server": [f"10.9.0.{number}" for number in range(9)]},
            "invalid-value",
            "name_server must be given at most 8 times; got 9.",
        ),
        ({"dns": "10.20.0.1"}, "invalid-value", "There is no argument 'dns' here"),
    ],
)
async def test_what_makes_no_sound_network_is_refused(
    networks: Networks, values: dict[str, Any], code: str, sentence: str
) -> None:
    wanted = {key: value for key, value in (MANAGED | values).items() if value is not None}
    refused, message = await networks.refused("POST", "", **wanted)
    assert (refused, message[: len(sentence)]) == (code, sentence)
    assert networks.count(Network) == networks.count(NetworkName) == 0


@pytest.mark.parametrize("name", ["a b", "a\tb", "", " ", "-a", ".a", "a/b", "ä", "x" * 129, "a,b", "a\n", "$(id)"])
async def test_a_description_is_a_name_without_blanks(networks: Networks, name: str) -> None:
    await networks.create_app()
    for method, path, values in (("POST", "", MANAGED | {"vni": "201"}), ("PUT", "/app", {})):
        assert (await networks.refused(method, path, **(values | {"description": name})))[0] == "invalid-value"
    assert await networks.get("/app")


@pytest.mark.parametrize(
    ("gateway", "taken", "warned"),
    [
        (None, "fd00:20::1", False),
        ("", "fd00:20::1", False),
        ("fd00:20::fe", "fd00:20::fe", False),
        ("FD00:20::FE", "fd00:20::fe", False),
        ("fd00:21::1", "fd00:20::1", True),
        ("fd00:20::", "fd00:20::1", True),
        ("10.20.0.1", "fd00:20::1", True),
        ("fd00:20::2%eth0", "fd00:20::1", True),
        ("x --script", "fd00:20::1", True),
    ],
)
async def test_an_ipv6_gateway_that_is_none_has_a_default(
    networks: Networks, gateway: str | None, taken: str, warned: bool
) -> None:
    values = {} if gateway is None else {"ip6_gateway": gateway}
    reply = await networks.create(ip6_network="fd00:20::/64", **values)
    expected = [f"ip6_gateway set to fd00:20::1: {gateway!r} is not a host address in fd00:20::/64."]
    assert reply.get("warnings") == (expected if warned else None)
    assert (await networks.get("/200"))[0]["ip6"]["gateway"] == taken


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"vni": "200"}, "network-exists"),
        ({"description": "app"}, "network-exists"),
        ({"domain": "app.local"}, "domain-exists"),
        ({"domain": "APP.local"}, "domain-exists"),
        ({"ip4_network": "10.20.0.0/24", "ip4_gateway": "10.20.0.1"}, "network-overlap"),
        ({"ip4_network": "10.20.0.128/25", "ip4_gateway": "10.20.0.129"}, "network-overlap"),
        ({"ip4_network": "10.0.0.0/8", "ip4_gateway": "10.0.0.1"}, "network-overlap"),
        ({"ip6_network": "fd00:20::/64"}, "network-overlap"),
    ],
)
async def test_what_another_network_has_is_refused(networks: Networks, values: dict[str, str], code: str) -> None:
    await networks.do("POST", "", **MANAGED, ip6_network="fd00:20::/64")
    wanted = {"vni": "201", "description": "other", "nettype": "managed"} | values
    assert (await networks.refused("POST", "", **wanted))[0] == code
    if "vni" not in values:
        await networks.create(201, "other")
        assert (await networks.refused("PUT", "/201", **values))[0] == code
    assert len(await networks.get("")) == (1 if "vni" in values else 2)


async def test_bridged_networks_share_nothing_but_vnis_and_descriptions_with_others(networks: Networks) -> None:
    await networks.create_app()
    await networks.do("POST", "", vni=100, description="site", nettype="bridged", ip4_network="10.20.0.0/24")
    code, sentence = await networks.refused("POST", "", vni=200, description="x", nettype="bridged")
    assert (code, sentence) == ("network-exists", "Cannot create network 'x': there is a network with VNI 200 already.")
    code, sentence = await networks.refused("POST", "", vni=101, description="app", nettype="bridged")
    assert (code, sentence) == ("network-exists", "Cannot use description 'app': network 200 has it.")


async def test_only_what_is_given_changes(networks: Networks) -> None:
    await networks.do("POST", "", **MANAGED, ip6_network="fd00:20::/64", name_server="10.20.0.53")
    (before,) = await networks.get("/app")
    assert await networks.do("PUT", "/app", dhcp4_end="10.20.0.120") == {"message": "Network 'app' modified."}
    before["ip4"]["dhcp_end"] = "10.20.0.120"
    assert await networks.get("/app") == [before]
    await networks.do("PUT", "/200", domain="App.Example", name_server=["10.20.0.54", "10.20.0.55", "10.20.0.54"])
    before |= {"domain": "app.example", "name_servers": ["10.20.0.54", "10.20.0.55"]}
    assert await networks.get("/app") == [before]
    await networks.do("PUT", "/200", dhcp4="false")
    before["ip4"]["dhcp_flag"] = False
    assert await networks.get("/app") == [before]


async def test_a_network_is_renamed(networks: Networks) -> None:
    await networks.create_app()
    await networks.do("PUT", "/app", description="shop")
    (shown,) = await networks.get("/shop")
    assert (shown["description"], shown["domain"], shown["vni"]) == ("shop", "app.local", 200)
    assert (await networks.refused("GET", "/app"))[0] == "network-not-found"
    await networks.create(201, "app", domain="app.example")
    assert (await networks.refused("PUT", "/shop", description="app"))[0] == "network-exists"
    await networks.do("PUT", "/shop", description="shop")
    assert [each["description"] for each in await networks.get("")] == ["app", "shop"]


async def test_an_empty_value_takes_away_what_was_there(networks: Networks) -> None:
    await networks.do("POST", "", **MANAGED, ip6_network="fd00:20::/64", name_server="10.20.0.53", domain="x.example")
    await networks.do("PUT", "/app", ip4_network="", name_server="", domain="")
    (shown,) = await networks.get("/app")
    assert (shown["ip4"], shown["name_servers"], shown["domain"]) == (NO_IP4, [], "app.local")
    await networks.do("PUT", "/app", ip6_gateway="fd00:20::fe")
    await networks.do("PUT", "/app", ip6_gateway="")
    assert (await networks.get("/app"))[0]["ip6"]["gateway"] == "fd00:20::1"
    await networks.do("PUT", "/app", ip6_network="")
    assert (await networks.get("/app"))[0]["ip6"] == NO_IP6


async def test_the_ipv6_gateway_moves_with_its_network(networks: Networks) -> None:
    await networks.create(ip6_network="fd00:20::/64", ip6_gateway="fd00:20::fe")
    await networks.do("PUT", "/app", ip6_network="fd00:21::/64")
    assert (await networks.get("/app"))[0]["ip6"]["gateway"] == "fd00:21::1"


async def test_a_change_is_checked_as_a_whole(networks: Networks) -> None:
    await networks.create_app()
    (before,) = await networks.get("/app")
    for values, sentence in (
        ({}, "Cannot modify network 'app': no value was given."),
        ({"ip4_gateway": ""}, "ip4_network requires ip4_gateway: an address in 10.20.0.0/24 for the primary"),
        ({"ip4_network": "10.30.0.0/24"}, "ip4_gateway must be in 10.30.0.0/24; got 10.20.0.1."),
        ({"ip4_gateway": "10.20.0.101"}, "ip4_gateway must be outside the DHCP range 10.20.0.100 to"),
        ({"dhcp4_end": ""}, "dhcp4 requires dhcp4_start and dhcp4_end."),
        ({"dhcp4_end": "10.20.0.99"}, "dhcp4_start must not be after dhcp4_end 10.20.0.99; got 10.20.0.100."),
        ({"ip4_network": "10.20.0.0/25"}, "dhcp4_end must be in 10.20.0.0/25; got 10.20.0.199."),
        ({"ip4_network": "", "ip4_gateway": "10.20.0.1"}, "ip4_gateway requires ip4_network."),
        ({"vni": "201"}, "There is no argument 'vni' here"),
        ({"nettype": "bridged"}, "There is no argument 'nettype' here"),
    ):
        code, message = await networks.refused("PUT", "/app", **values)
        assert (code, message[: len(sentence)]) == ("invalid-value", sentence)
    assert await networks.get("/app") == [before]
    await networks.do("PUT", "/app", ip4_network="10.30.0.0/24", ip4_gateway="10.30.0.1", dhcp4="no", dhcp4_start="",
                      dhcp4_end="")  # fmt: skip
    await networks.create(201, "other", **IP4, domain="other.example")


async def test_a_bridged_network_can_be_renamed_and_nothing_else(networks: Networks) -> None:
    await networks.do("POST", "", vni=100, description="site", nettype="bridged")
    reply = await networks.do("PUT", "/site", description="lan", **IP4)
    assert reply["warnings"][0].startswith("Ignored, ")
    assert (await networks.get("/lan"))[0]["ip4"] == NO_IP4


async def test_a_network_is_removed_with_all_that_belongs_to_it(networks: Networks) -> None:
    await networks.create_app()
    await networks.do("POST", "/app/lease", macaddress="52:54:00:00:00:01", ipaddress="10.20.0.50")
    await networks.do("POST", "/app/acl", description="ssh", direction="in", rule="tcp dport 22 accept")
    assert await networks.do("DELETE", "/app") == {"message": "Network 'app' removed."}
    assert [networks.count(kind) for kind in (Network, NetworkName, Reservations, Acls)] == [0, 0, 0, 0]
    assert (await networks.refused("DELETE", "/app"))[0] == "network-not-found"
    await networks.create_app()
    assert (await networks.get("/app/lease"), await networks.get("/app/acl")) == ([], [])
