"""What the script tells of a lease, and how dnsmasq reads those that are known."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from pvcd.errors import Invalid
from pvcd_plugins.network.dhcp import Leased
from pvcd_plugins.network.dhcp.lines import LeaseEvent, known, read, server_id

MAC, DUID = "52:54:00:00:00:01", "00:03:00:01:52:54:00:00:00:01"
FOUR = Leased(IPv4Address("10.20.0.9"), MAC, f"01:{MAC}", "web1", 1_800_000_000.0)
SIX = Leased(IPv6Address("fd00::9"), MAC, DUID, None, 1_800_000_000.0, 7)


def line(*fields: str) -> str:
    return "\0".join(fields)


def test_a_lease_of_ipv4_is_understood() -> None:
    told = read(line("200", "add", MAC, "10.20.0.9", "web1", "1800000000", f"01:{MAC}", "", ""))
    assert told == LeaseEvent(200, "add", FOUR.address, FOUR)
    bare = read(line("200", "old", MAC, "10.20.0.9", "", "1800000000", "", "", ""))
    assert bare.lease == Leased(FOUR.address, MAC, "*", None, 1_800_000_000.0)


@pytest.mark.parametrize("iaid", ["7", "T7"])
def test_a_lease_of_ipv6_is_understood(iaid: str) -> None:
    told = read(line("200", "add", DUID, "fd00::9", "", "1800000000", "", iaid, MAC))
    assert told == LeaseEvent(200, "add", SIX.address, SIX)


def test_the_end_of_a_lease_is_understood() -> None:
    assert read(line("200", "del", MAC, "10.20.0.9", "web1", "", "", "", "")) == LeaseEvent(200, "del", FOUR.address)


def test_other_calls_of_the_script_mean_nothing() -> None:
    assert read(line("200", "arp-add", MAC, "10.20.0.9", *[""] * 5)) == LeaseEvent(200, "arp-add")


@pytest.mark.parametrize(
    "text",
    [
        *("", "200", line("200", "add"), line("x", "add", *[""] * 7), line("200", "add", MAC, "no", *[""] * 5)),
        line("200", "add", MAC, "10.20.0.9", "", "soon", "", "", ""),
        line("200", "add", DUID, "fd00::9", "", "1800000000", "", "", ""),
        line("200", "add", MAC, "10.20.0.9", "", "1800000000", "", "", "", ""),
    ],
)
def test_what_dnsmasq_never_says_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="Cannot parse a lease"):
        read(text)


def test_known_leases_are_written_as_dnsmasq_reads_them() -> None:
    assert known(200, [SIX, FOUR]).splitlines() == [
        f"duid {server_id(200)}",
        f"1800000000 {MAC} 10.20.0.9 web1 01:{MAC}",
        f"1800000000 7 fd00::9 * {DUID}",
    ]


def test_the_server_is_the_same_wherever_a_network_is_served() -> None:
    assert server_id(200) == server_id(200) != server_id(201)
    assert server_id(200).startswith("00:04:") and len(server_id(200)) == 18 * 3 - 1


@pytest.mark.parametrize(
    "lease",
    [
        Leased(FOUR.address, "none", "*", None, 1.0),
        Leased(FOUR.address, None, "*", None, 1.0),
        Leased(FOUR.address, f"{MAC}\n9", "*", None, 1.0),
        Leased(SIX.address, None, DUID, None, 1.0),
        Leased(SIX.address, None, "*", None, 1.0, 7),
        Leased(IPv6Address("fe80::1%a\nduid 00"), None, DUID, None, 1.0, 7),
    ],
)
def test_leases_that_dnsmasq_could_not_read_are_left_out(lease: Leased) -> None:
    assert known(200, [lease]) == known(200, [])


@pytest.mark.parametrize("name", ["a b", "a\nb", "", "*", "$(id)", "-a", "x" * 256])
def test_names_that_are_none_are_left_out(name: str) -> None:
    odd = Leased(FOUR.address, MAC, name, name, 1.0)
    assert known(200, [odd]).splitlines()[1:] == [f"1 {MAC} 10.20.0.9 * *"]
