"""Leases: what is shown of them, and which addresses can be reserved."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pvcd import Put
from pvcd_plugins.network import records
from pvcd_plugins.network.dhcp import Reservation
from pvcd_plugins.network.records import Reservations
from tests.unit.network.conftest import Networks

MAC = "52:54:00:00:00:{:02x}"
STATIC = {
    "hostname": "web1",
    "ip4_address": "10.20.0.50",
    "ip6_address": None,
    "mac_address": MAC.format(2),
    "timestamp": "static",
}


@pytest.fixture(params=["lease", "dhcp"])
def path(request: pytest.FixtureRequest) -> str:
    """Both paths are the same."""
    return f"/app/{request.param}"


async def reserve(networks: Networks, number: int, address: str, path: str = "/app/lease", **more: Any) -> Any:
    return await networks.do("POST", path, macaddress=MAC.format(number), ipaddress=address, **more)


async def test_a_static_lease_is_added_shown_and_removed(networks: Networks, path: str) -> None:
    await networks.create_app()
    reply = await reserve(networks, 2, "10.20.0.50", path, hostname="Web1")
    assert reply == {"message": "Static lease added: 52:54:00:00:00:02 -> 10.20.0.50 (network 'app')."}
    for other in ("/app/lease", "/app/dhcp", "/200/lease"):
        assert await networks.get(other) == [STATIC]
        for key in (MAC.format(2), MAC.format(2).replace(":", "-"), "web1", "WEB1", "10.20.0.50"):
            assert await networks.get(f"{other}/{key}") == [STATIC]
    reply = await networks.do("DELETE", f"{path}/{MAC.format(2)}")
    assert reply == {"message": "Static lease removed: 52:54:00:00:00:02 -> 10.20.0.50 (network 'app')."}
    assert await networks.get(path) == []


async def test_active_leases_stand_beside_static_ones_by_mac(networks: Networks, path: str) -> None:
    await networks.create_app()
    await reserve(networks, 2, "10.20.0.50")
    await networks.lease("10.20.0.50", MAC.format(2), hostname="web1")
    await networks.lease("10.20.0.101", MAC.format(3), hostname="db1", expires=4102444800.7)
    await networks.lease("10.20.0.100", MAC.format(1))
    await networks.lease("fd00:20::100", MAC.format(1), iaid=7)
    await networks.lease("fd00:20::101", None, hostname="who")
    await networks.lease("10.20.0.102", MAC.format(4), expires=networks.context.clock.time())
    await networks.lease("10.20.0.100", MAC.format(5), vni=201)
    leases = await networks.get(path)
    assert [(each["mac_address"], each["ip4_address"] or each["ip6_address"]) for each in leases] == [
        (MAC.format(1), "10.20.0.100"),
        (MAC.format(1), "fd00:20::100"),
        (MAC.format(2), "10.20.0.50"),
        (MAC.format(3), "10.20.0.101"),
        (None, "fd00:20::101"),
    ]
    assert leases[2] == STATIC
    assert leases[3]["timestamp"] == "4102444800"
    assert await networks.get(path, static="") == [STATIC]
    assert await networks.get(path, limit="00:0[13]$") == [leases[0], leases[1], leases[3]]
    assert await networks.get(path, limit="03", static="no") == [leases[3]]
    assert await networks.get(path, limit="nothing") == []
    assert await networks.get(f"{path}/{MAC.format(1)}") == leases[:2]
    assert await networks.get(f"{path}/fd00:20:0::100") == [leases[1]]
    assert await networks.get(f"{path}/who") == [leases[4]]


async def test_an_unknown_lease_is_not_found(networks: Networks, path: str) -> None:
    await networks.create_app()
    await reserve(networks, 2, "10.20.0.50", hostname="web1")
    for key in (MAC.format(3), "52:54:00:00:00", "web", "web10", "10.20.0.5", "10.20.0.51", "static", "None", "null"):
        for method in ("GET", "DELETE"):
            assert (await networks.refused(method, f"{path}/{key}"))[0] == "lease-not-found"


async def test_a_dynamic_lease_is_not_removed(networks: Networks, path: str) -> None:
    await networks.create_app()
    await networks.lease("10.20.0.101", MAC.format(3))
    code, sentence = await networks.refused("DELETE", f"{path}/{MAC.format(3)}")
    assert code == "lease-not-static"
    reason = "it is not static, and ends when its host stops renewing it"
    assert sentence == f"Cannot remove lease '{MAC.format(3)}': {reason}."


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"macaddress": "52:54:00"}, "macaddress must be a MAC address, such as 52:54:00:3c:81:a0; got '52:54:00'."),
        ({"macaddress": "01:00:5e:00:00:01"}, "macaddress must be the address of a host, not of a group; got"),
        ({"macaddress": "00:00:00:00:00:00"}, "macaddress must not be all zeros; got"),
        ({"macaddress": None}, "The argument 'macaddress' is missing."),
        ({"ipaddress": None}, "The argument 'ipaddress' is missing."),
        ({"ipaddress": ""}, "ipaddress must be an IPv4 address, such as 10.20.0.1; got ''."),
        ({"ipaddress": "10.20.0.300"}, "ipaddress must be an IPv4 address, such as 10.20.0.1; got '10.20.0.300'."),
        ({"ipaddress": "fd00:20::5"}, "ipaddress must be an IPv4 address, such as 10.20.0.1; got 'fd00:20::5'."),
        ({"ipaddress": "10.20.0.50/24"}, "ipaddress must be an IPv4 address, such as 10.20.0.1; got '10.20.0.50/24'."),
        ({"ipaddress": "10.21.0.50"}, "ipaddress must be in 10.20.0.0/24; got 10.21.0.50."),
        ({"ipaddress": "10.20.0.1"}, "ipaddress must not be the gateway of network 'app'; got 10.20.0.1."),
        ({"ipaddress": "10.20.0.0"}, "ipaddress must not be the address of 10.20.0.0/24 itself; got 10.20.0.0."),
        ({"ipaddress": "10.20.0.255"}, "ipaddress must not be the broadcast address of 10.20.0.0/24; got 10.20.0.255."),
        ({"hostname": "a.b"}, "hostname must be at most 63 letters, digits and '-', without a domain; got 'a.b'."),
        (
            {"hostname": "x,ignore"},
            "hostname must be at most 63 letters, digits and '-', without a domain; got 'x,ignore'.",
        ),
        ({"hostname": "12h"}, "hostname must not be a number, a time or a keyword to dnsmasq; got '12h'."),
    ],
)
async def test_what_no_host_can_have_is_refused(
    networks: Networks, path: str, values: dict[str, str | None], sentence: str
) -> None:
    await networks.create_app()
    given = {"macaddress": MAC.format(2), "ipaddress": "10.20.0.50"} | values
    code, message = await networks.refused(
        "POST", path, **{key: value for key, value in given.items() if value is not None}
    )
    assert (code, message[: len(sentence)]) == ("invalid-value", sentence)
    assert await networks.get(path) == []


async def test_what_another_host_has_is_refused(networks: Networks) -> None:
    await networks.create_app()
    await reserve(networks, 2, "10.20.0.50", hostname="web1")
    lease = "there is one for 52:54:00:00:00:02 -> 10.20.0.50"
    for mac, address, hostname, reason in (
        (2, "10.20.0.51", "", lease),
        (3, "10.20.0.50", "", lease),
        (3, "10.20.0.51", "WEB1", f"{lease} with the host name 'web1'"),
    ):
        sentence = f"Cannot add a static lease to network 'app': {reason}. Remove it first."
        values = {"macaddress": MAC.format(mac), "ipaddress": address, "hostname": hostname}
        assert await networks.refused("POST", "/app/lease", **values) == ("lease-exists", sentence)
    await reserve(networks, 3, "10.20.0.51")
    await reserve(networks, 4, "10.20.0.52")
    await networks.create(201, "other", ip4_network="10.21.0.0/24", ip4_gateway="10.21.0.1", domain="x")
    await reserve(networks, 2, "10.21.0.50", "/other/lease", hostname="web1")


async def test_what_will_not_be_given_yet_is_said(networks: Networks) -> None:
    await networks.create_app()
    await networks.lease("10.20.0.101", MAC.format(9))
    reply = await reserve(networks, 2, "10.20.0.101")
    assert reply["warnings"] == [
        "52:54:00:00:00:02 gets 10.20.0.101 only when the current lease of 52:54:00:00:00:09 ends."
    ]
    await networks.do("PUT", "/app", dhcp4="no")
    reply = await reserve(networks, 3, "10.20.0.50")
    assert reply["warnings"] == ["The lease has no effect yet: DHCP is off in network 'app'."]


async def test_a_network_without_ipv4_has_no_static_leases(networks: Networks) -> None:
    await networks.create()
    code, sentence = await networks.refused("POST", "/app/lease", macaddress=MAC.format(1), ipaddress="10.20.0.50")
    assert code == "invalid-value"
    assert sentence == "ipaddress must be in an IPv4 network, and network 'app' has none; got 10.20.0.50."


async def test_a_bridged_network_has_no_leases(networks: Networks, path: str) -> None:
    await networks.do("POST", "", vni=100, description="app", nettype="bridged")
    assert await networks.get(path) == []
    values = {"macaddress": MAC.format(1), "ipaddress": "10.20.0.50"}
    code, sentence = await networks.refused("POST", path, **values)
    assert code == "network-not-managed"
    assert sentence == "Cannot change leases or ACLs of network 'app': it is bridged and has none."


async def test_a_change_of_the_network_loses_no_static_lease(networks: Networks) -> None:
    await networks.create_app()
    await reserve(networks, 2, "10.20.0.50")
    for values, reason in (
        ({"ip4_network": ""}, "must be in an IPv4 network, and network 'app' has none"),
        ({"ip4_gateway": "10.20.0.50"}, "must not be the gateway of network 'app'"),
        (
            {"ip4_network": "10.20.0.0/27", "dhcp4_start": "10.20.0.5", "dhcp4_end": "10.20.0.9"},
            "must be in 10.20.0.0/27",
        ),
    ):
        code, sentence = await networks.refused("PUT", "/app", **values)
        assert code == "lease-outside-network"
        lease = "the static lease 52:54:00:00:00:02 -> 10.20.0.50"
        assert sentence == f"Cannot modify network 'app': {lease} {reason}. Remove it first."
    await networks.do("PUT", "/app", ip4_gateway="10.20.0.2")
    await networks.do("DELETE", "/app/lease/10.20.0.50")
    await networks.do("PUT", "/app", ip4_network="")


async def test_of_two_that_take_the_same_at_once_one_does(networks: Networks) -> None:
    await networks.create_app()
    values = [{"macaddress": MAC.format(number), "ipaddress": "10.20.0.50"} for number in range(8)]
    values += [{"macaddress": MAC.format(9), "ipaddress": f"10.20.0.{60 + number}"} for number in range(8)]
    asked = asyncio.gather(*(networks.ask("POST", "/app/lease", **each) for each in values))
    while not asked.done():
        await networks.cluster.advance(0.1)
    codes = sorted(reply.json.get("code", "") for reply in await asked)
    assert codes == ["", "", *["lease-exists"] * 14]
    assert len(await networks.get("/app/lease")) == 2


async def test_there_is_a_limit_that_the_store_can_take(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    await networks.create_app()
    monkeypatch.setattr(records, "MAX_LIST_BYTES", 200)
    await reserve(networks, 2, "10.20.0.50", hostname="a" * 63)
    code, sentence = await networks.refused(
        "POST", "/app/lease", macaddress=MAC.format(3), ipaddress="10.20.0.51", hostname="b" * 63
    )
    assert code == "network-full"
    assert sentence == "Cannot add a static lease to network 'app': the limit is reached with 1."


async def test_the_room_is_enough_for_thousands(networks: Networks) -> None:
    await networks.create_app()
    await networks.do("PUT", "/app", ip4_network="10.20.0.0/16", ip4_gateway="10.20.0.1")
    held = networks.context.store.get(Reservations, 200)
    assert held
    many = tuple(
        Reservation(f"52:54:00:00:{n // 256:02x}:{n % 256:02x}", f"10.20.{100 + n // 256}.{n % 256}", f"{n:063x}")  # type: ignore[arg-type]
        for n in range(3000)
    )
    await networks.context.store.write(Put(held.changed(reservations=many)))
    await networks.do("POST", "/app/lease", macaddress="52:54:00:01:00:00", ipaddress="10.20.0.50")
    assert len(await networks.get("/app/lease")) == 3001
