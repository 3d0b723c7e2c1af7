"""What addresses, MACs, host names and domains may be."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from pvcd_plugins.network.rules import addresses
from pvcd_plugins.network.rules.addresses import (
    not_a_host,
    read_domain,
    read_hostname,
    read_ip4_address,
    read_ip4_network,
    read_ip6_address,
    read_ip6_network,
    read_mac,
    read_name_server,
)

INJECTIONS = (
    "",
    " ",
    "10.20.0.1 --dhcp-script=/bin/sh",
    "10.20.0.1,set:x",
    "10.20.0.1\ndhcp-script=/bin/sh",
    "10.20.0.1#53",
    "10.20.0.1@lo",
    "10.20.0.1%eth0",
    "fe80::1%eth0",
    "fe80::1%--conf-file=/etc/shadow",
    "fd00::1%1",
    "010.020.000.001",
    "0x0a140001",
    "169082881",
    "10.20.1",
    "1\u0660.20.0.1",
    "10\u300220\u30020\u30021",
    "localhost",
    "$(id)",
    "`id`",
    "%s",
    "a" * 10_000,
    "9" * 10_000,
)
READERS = (
    read_ip4_address,
    read_ip6_address,
    read_name_server,
    read_ip4_network,
    read_ip6_network,
    read_mac,
)


@pytest.mark.parametrize("text", INJECTIONS, ids=lambda text: text[:20].encode("unicode_escape").decode())
@pytest.mark.parametrize("read", READERS)
def test_nothing_but_an_address_is_taken_for_one(read: object, text: str) -> None:
    for each in (text, f"{text}/24", f"{text}/64"):
        with pytest.raises(ValueError, match=r"^must "):
            read(each)  # type: ignore[operator]


@pytest.mark.parametrize("text", ["10.20.0.0/24", "192.168.0.0/16", "10.0.0.0/8", "10.20.0.4/30", "100.64.0.0/10"])
def test_an_ipv4_network_is_read(text: str) -> None:
    assert read_ip4_network(text) == ip_network(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10.20.0.5/24", "must be the network 10.20.0.0/24, not the address of a host in it"),
        ("10.20.0.0", "must be an IPv4 network with its prefix length, such as 10.20.0.0/24"),
        ("10.20.0.0/255.255.255.0", "must be an IPv4 network with its prefix length, such as 10.20.0.0/24"),
        ("10.20.0.0/33", "must be an IPv4 network with its prefix length, such as 10.20.0.0/24"),
        ("10.20.0.0/", "must be an IPv4 network with its prefix length, such as 10.20.0.0/24"),
        ("10.20.0.0/-1", "must be an IPv4 network with its prefix length, such as 10.20.0.0/24"),
        ("fd00::/64", "must be an IPv4 network with its prefix length, such as 10.20.0.0/24"),
        ("10.20.0.0/31", "must have a prefix length of /8 to /30"),
        ("10.20.0.1/32", "must have a prefix length of /8 to /30"),
        ("0.0.0.0/0", "must have a prefix length of /8 to /30"),
        ("0.0.0.0/8", "must not overlap with 0.0.0.0/8 (unspecified)"),
        ("127.0.0.0/24", "must not overlap with 127.0.0.0/8 (loopback)"),
        ("169.254.169.0/24", "must not overlap with 169.254.0.0/16 (link-local)"),
        ("169.0.0.0/8", "must not overlap with 169.254.0.0/16 (link-local)"),
        ("224.0.0.0/24", "must not overlap with 224.0.0.0/4 (multicast)"),
        ("250.0.0.0/8", "must not overlap with 240.0.0.0/4 (reserved)"),
    ],
)
def test_what_is_no_ipv4_network_for_hosts_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        read_ip4_network(text)
    assert str(error.value) == sentence


@pytest.mark.parametrize("text", ["fd00:20::/64", "FD00:20:0:0::/64", "2001:db8:1:2::/64"])
def test_an_ipv6_network_is_read(text: str) -> None:
    assert read_ip6_network(text) == ip_network(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("fd00:20::5/64", "must be the network fd00:20::/64, not the address of a host in it"),
        ("fd00:20::", "must be an IPv6 network with its prefix length, such as fd00:20::/64"),
        ("10.0.0.0/24", "must be an IPv6 network with its prefix length, such as fd00:20::/64"),
        ("fd00::/48", "must have a prefix length of /64, so that hosts can choose their addresses"),
        ("fd00::/127", "must have a prefix length of /64, so that hosts can choose their addresses"),
        ("fe80::/64", "must not overlap with fe80::/10 (link-local)"),
        ("ff02::/64", "must not overlap with ff00::/8 (multicast)"),
        ("::/64", "must not overlap with ::/8 (loopback, unspecified or reserved)"),
        ("64:ff9b::/64", "must not overlap with ::/8 (loopback, unspecified or reserved)"),
    ],
)
def test_what_is_no_ipv6_network_for_hosts_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        read_ip6_network(text)
    assert str(error.value) == sentence


@pytest.mark.parametrize("text", ["10.20.0.53", "fd00::53", "8.8.8.8"])
def test_a_name_server_is_an_address(text: str) -> None:
    assert read_name_server(text) == ip_address(text)


@pytest.mark.parametrize("text", ["0.0.0.0", "127.0.0.1", "224.0.0.251", "255.255.255.255", "::", "::1", "ff02::fb"])
def test_what_cannot_be_a_name_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must not overlap with"):
        read_name_server(text)


@pytest.mark.parametrize("text", ["52:54:00:3c:81:a0", "52:54:00:3C:81:A0", "52-54-00-3c-81-a0"])
def test_a_mac_has_small_letters_and_colons(text: str) -> None:
    assert read_mac(text) == "52:54:00:3c:81:a0"


@pytest.mark.parametrize(
    "text",
    [
        *("", "52:54:00:3c:81", "52:54:00:3c:81:a0:01", "52:54:00:3c:81:ag", "5254003c81a0", "5254.003c.81a0"),
        *("52:54-00:3c:81:a0", "52:54:00:3c:81:*", "52:54:00:3c:81:a0 ", "52:54:00:3c:81:a0,ignore", "id:52:54:00"),
        *("2:4:0:c:1:0", "52:54:00:3c:81:a\u0660", "52:54:00:3c:81:a0\n"),
    ],
)
def test_what_is_no_mac_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a MAC address, such as 52:54:00:3c:81:a0$"):
        read_mac(text)


def test_a_mac_that_no_host_has_is_refused() -> None:
    for text in ("01:00:5e:00:00:fb", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"):
        with pytest.raises(ValueError, match=r"^must be the address of a host, not of a group$"):
            read_mac(text)
    with pytest.raises(ValueError, match=r"^must not be all zeros$"):
        read_mac("00:00:00:00:00:00")


@pytest.mark.parametrize("text", ["web1", "a", "1a2b", "web-1", "a" * 63, "infinite1", "12x"])
def test_a_hostname_is_one_label(text: str) -> None:
    assert read_hostname(text.upper()) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "-web", "web-", "web_1", "web.app", "web,ignore", "a b", "w\u0435b", "a" * 64, "web\n", "*", "set:x"),
        *("123", "45m", "12h", "7d", "1w", "infinite", "ignore", "Ignore", "localhost", "0"),
    ],
)
def test_a_hostname_that_means_something_else_to_somebody_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must (be at most 63 letters|not be a number)"):
        read_hostname(text)


@pytest.mark.parametrize("text", ["app.local", "lan", "a.b.c", "10-20.example", "xn--bcher-kva.example", "1.local"])
def test_a_domain_is_read(text: str) -> None:
    assert read_domain(text) == text
    assert read_domain(text.upper()) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "app.", ".app", "a..b", "-a.b", "a-.b", "a_b.c", "a b", "a/b", "a,b", "a#53", "app.local\n", "*.a"),
        *("b\u00fccher.example", "a" * 64, f"{'a' * 63}." * 3 + "b", "10.0.0.1", "in-addr.arpa", "localhost", "a.1"),
        "app.local --dhcp-script=/bin/sh",
    ],
)
def test_what_is_no_domain_for_hosts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must (be names of|have at most|not end in)"):
        read_domain(text)


def test_the_longest_name_of_a_host_fits_into_dns() -> None:
    domain = ".".join(["a" * 47, "b" * 47, "c" * 47, "d" * 45])
    assert len(read_domain(domain)) == addresses.MAX_DOMAIN_LENGTH
    assert len(f"{'h' * 63}.{domain}") == 253


def test_the_ends_of_a_network_are_no_hosts() -> None:
    ip4, ip6 = ip_network("10.20.0.0/24"), ip_network("fd00::/64")
    assert not_a_host(ip_address("10.20.0.1"), ip4) is None
    assert not_a_host(ip_address("10.20.0.0"), ip4) == "must not be the address of 10.20.0.0/24 itself"
    assert not_a_host(ip_address("10.20.0.255"), ip4) == "must not be the broadcast address of 10.20.0.0/24"
    assert not_a_host(ip_address("10.20.1.1"), ip4) == "must be in 10.20.0.0/24"
    assert not_a_host(ip_address("fd00::1"), ip4) == "must be in 10.20.0.0/24"
    assert not_a_host(ip_address("fd00::"), ip6) == "must not be the address of fd00::/64 itself"
    assert not_a_host(ip_address("fd00::ffff:ffff:ffff:ffff"), ip6) is None
