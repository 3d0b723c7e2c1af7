"""From a network as it is to be served to the files of its dnsmasq."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Any

import pytest

from pvcd.errors import Invalid
from pvcd_plugins.network.dhcp import Reservation, Served
from pvcd_plugins.network.dhcp.configuration import Place, configuration, names, reservations

PLACE = Place(Path("/run/dhcp/200"))
POOL = IPv4Address("10.20.0.100"), IPv4Address("10.20.0.199")
WEB = Reservation("52:54:00:00:00:01", IPv4Address("10.20.0.50"), "web1")


def served(**changed: Any) -> Served:
    plain: dict[str, Any] = {"ip4": IPv4Interface("10.20.0.1/24"), "dhcp4": POOL}
    return Served(**{"vni": 200, "domain": "app.example", "mtu": 1450, **plain, **changed})


def lines(**changed: Any) -> list[str]:
    return configuration(served(**changed), PLACE).splitlines()


def options(**changed: Any) -> list[str]:
    """What hosts are told."""
    return [line.removeprefix("dhcp-option=") for line in lines(**changed) if line.startswith("dhcp-option=")]


def ranges(**changed: Any) -> list[str]:
    """From which addresses hosts get theirs."""
    return [line.removeprefix("dhcp-range=") for line in lines(**changed) if line.startswith("dhcp-range=")]


def test_it_listens_at_its_bridge_only_and_reads_nothing_of_the_host() -> None:
    there = lines()
    assert [line for line in there if "interface" in line] == ["interface=vmbr200", "except-interface=lo"]
    assert {"bind-dynamic", "no-resolv", "no-hosts", "pid-file=", "keep-in-foreground"} <= set(there)


def test_it_knows_its_own_names_and_addresses_and_asks_the_name_servers_for_others() -> None:
    there = lines(ip6=IPv6Interface("fd00:20::1/64"), name_servers=(IPv4Address("9.9.9.9"), IPv6Address("2620:fe::9")))
    assert {"domain=app.example", "local=/app.example/", "expand-hosts"} <= set(there)
    assert {"rev-server=10.20.0.0/24", "rev-server=fd00:20::/64"} <= set(there)
    assert [line for line in there if line.startswith("server=")] == ["server=9.9.9.9", "server=2620:fe::9"]
    assert not any(line.startswith("server=") for line in lines())


def test_hosts_are_told_of_the_gateway_for_everything() -> None:
    assert ranges() == ["10.20.0.100,10.20.0.199,255.255.255.0,48h"]
    assert options() == [
        *(f"option:{name},10.20.0.1" for name in ("router", "dns-server", "ntp-server")),
        "option:mtu,1450",
        "option:classless-static-route,169.254.169.254/32,10.20.0.1,0.0.0.0/0,10.20.0.1",
        "option:domain-search,app.example",
    ]


def test_without_a_domain_there_are_none_of_its_lines() -> None:
    assert not any("domain" in line or "local=" in line or line == "expand-hosts" for line in lines(domain=""))


def test_without_a_pool_there_is_no_dhcp() -> None:
    assert ranges(dhcp4=None) == [] == options(dhcp4=None)


def test_beside_ipv4_hosts_make_up_their_addresses_of_ipv6() -> None:
    changed = {"ip6": IPv6Interface("fd00:20::1/64")}
    assert ranges(**changed)[1:] == ["fd00:20::,ra-stateless,64,24h"]
    assert {"enable-ra", "ra-param=vmbr200,mtu:1450,60,180"} <= set(lines(**changed))
    assert [each for each in options(**changed) if "option6" in each] == [
        *("option6:dns-server,[fd00:20::1]", "option6:sntp-server,[fd00:20::1]", "option6:domain-search,app.example"),
    ]


@pytest.mark.parametrize(
    ("gateway", "expected"),
    [
        ("fd00:20::1/64", "fd00:20::2,fd00:20::ffff,64,24h"),
        ("fd00:20:0:7::1/48", "fd00:20:0:7::2,fd00:20:0:7::ffff,64,24h"),
        ("fd00:20::1/120", "fd00:20::2,fd00:20::ff,120,24h"),
        ("fd00:20::1/126", "fd00:20::2,fd00:20::3,126,24h"),
    ],
)
def test_without_ipv4_they_get_addresses_by_dhcpv6(gateway: str, expected: str) -> None:
    assert ranges(ip4=None, dhcp4=None, ip6=IPv6Interface(gateway)) == [expected]


def test_where_a_network_is_too_small_for_made_up_addresses_they_get_them_too() -> None:
    assert ranges(ip6=IPv6Interface("fd00:20::1/80"))[1:] == ["fd00:20::2,fd00:20::ffff,80,24h"]
    assert ranges(ip6=IPv6Interface("fd00:20::1/127"))[1:] == []


def test_there_are_as_many_leases_as_addresses_and_not_endlessly_many() -> None:
    wide = IPv4Interface("10.0.0.1/8")
    huge = IPv4Address("10.0.0.2"), IPv4Address("10.255.0.0")
    assert "dhcp-lease-max=1100" in lines()
    assert "dhcp-lease-max=11000" in lines(ip4=wide, dhcp4=huge)


def test_reservations_change_nothing_in_the_configuration() -> None:
    assert lines(reservations=(WEB,)) == lines()


def test_a_reservation_is_a_file_and_its_name_another() -> None:
    both = served(reservations=(WEB, Reservation("52:54:00:00:00:02", IPv4Address("10.20.0.51"))))
    assert reservations(both) == {
        "52-54-00-00-00-01": "52:54:00:00:00:01,10.20.0.50\n",
        "52-54-00-00-00-02": "52:54:00:00:00:02,10.20.0.51\n",
    }
    assert names(both) == {"52-54-00-00-00-01": "10.20.0.50 web1\n"}


@pytest.mark.parametrize("name", ["ignore", "infinite", "12h", "7", "localhost"])
def test_a_name_is_never_where_it_would_be_an_order(name: str) -> None:
    odd = served(reservations=(Reservation(WEB.mac, WEB.address, name),))
    assert reservations(odd) == {"52-54-00-00-00-01": "52:54:00:00:00:01,10.20.0.50\n"}


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("10.20.1.1", "10.20.1.9"),
        ("10.20.0.9", "10.20.0.1"),
        ("10.20.0.0", "10.20.0.9"),
        ("10.20.0.9", "10.20.0.255"),
        ("10.19.0.9", "10.20.0.9"),
    ],
)
def test_a_pool_that_is_not_within_the_network_is_refused(first: str, last: str) -> None:
    with pytest.raises(Invalid, match=f"DHCP range must be within network 200; got {first} to {last}"):
        lines(dhcp4=(IPv4Address(first), IPv4Address(last)))


def test_a_pool_without_a_network_is_refused() -> None:
    with pytest.raises(Invalid, match="must be within network 200"):
        lines(ip4=None)


def test_a_reservation_outside_of_the_network_is_refused() -> None:
    for address in ("10.21.0.1", "10.20.0.0", "10.20.0.255"):
        with pytest.raises(Invalid, match=f"must be within network 200; got {address}"):
            reservations(served(reservations=(Reservation(WEB.mac, IPv4Address(address)),)))


@pytest.mark.parametrize(("name", "value"), [("mtu", 575), ("mtu", 65536), ("vni", 0), ("vni", 1 << 24), ("vni", -1)])
def test_impossible_numbers_are_refused(name: str, value: int) -> None:
    with pytest.raises(Invalid, match=f"{name} of .* must be from .*; got {value}"):
        lines(**{name: value})
