"""Values that would be orders to dnsmasq, if they ever came into a configuration of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Any

import pytest

from pvcd.errors import Invalid
from pvcd_plugins.network.dhcp import Reservation, Served
from pvcd_plugins.network.dhcp.configuration import Place, configuration, names, reservations
from pvcd_plugins.network.dns import Zone
from pvcd_plugins.network.dns.dnsmasq import DnsmasqDns

PLACE = Place(Path("/run/dhcp/200"))
SERVED = Served(
    vni=200,
    domain="app.example",
    mtu=1450,
    ip4=IPv4Interface("10.20.0.1/24"),
    ip6=IPv6Interface("fd00:20::1/64"),
    dhcp4=(IPv4Address("10.20.0.100"), IPv4Address("10.20.0.199")),
)
TEXTS = (
    "a\ndhcp-script=/tmp/x",
    "a\rdhcp-script=/tmp/x",
    "a\x0bdhcp-script=/tmp/x",
    "a\u2028dhcp-script=/tmp/x",
    "a\u0085b",
    "a\n",
    "\na",
    "a\0b",
    "a b",
    "a\tb",
    "a,b",
    "a,set:x",
    "tag:x",
    "set:x",
    "id:*",
    "a/b",
    "a/1.2.3.4",
    "/a/",
    "../../etc/passwd",
    "a#53",
    "a@eth0",
    "a;b",
    "a'b",
    'a"b',
    "a\\nb",
    "#",
    "#a",
    "*",
    "*.example",
    "",
    ".",
    ".a",
    "a.",
    "a..b",
    "-a",
    "a-",
    "a_b",
    "$(id)",
    "`id`",
    "%s%n",
    "--dhcp-script=/tmp/x",
    "\u0430pp.example",
    "\uff41.example",
    "a\u200b",
    "\u0661\u0662",
    "a" * 64,
    "a." * 127 + "a",
    "a" * 100_000,
)
ZONES = ("%a\nport=99", "%a,b", "%eth0", "%a b", "%\u2028x")


def everything(served: Served) -> str:
    """Return all configuration files of a network."""
    files = [*reservations(served).values(), *names(served).values()]
    return configuration(served, PLACE) + "".join(files)


def reserved(mac: str = "52:54:00:00:00:01", hostname: str | None = None) -> Served:
    return replace(SERVED, reservations=(Reservation(mac, IPv4Address("10.20.0.50"), hostname),))


HOLDERS: dict[str, Callable[[str], Served]] = {
    "domain": lambda text: replace(SERVED, domain=text),
    "hostname": lambda text: reserved(hostname=text),
    "mac": lambda text: reserved(text),
    "mac-end": lambda text: reserved(f"52:54:00:00:00:01{text}"),
}


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20].encode("unicode_escape").decode())
@pytest.mark.parametrize("where", HOLDERS)
def test_text_that_is_not_a_single_name_is_refused(where: str, text: str) -> None:
    if not text and where in ("domain", "mac-end"):
        return  # which is none, and nothing added
    with pytest.raises(Invalid) as raised:
        everything(HOLDERS[where](text))
    assert raised.value.sentence.isprintable() and len(raised.value.sentence) < 500


@pytest.mark.parametrize("zone", ZONES, ids=lambda zone: zone.encode("unicode_escape").decode())
def test_an_address_with_more_than_numbers_is_refused(zone: str) -> None:
    with pytest.raises(Invalid, match="must be an IPv4 or IPv6 address"):
        everything(replace(SERVED, name_servers=(IPv6Address(f"fe80::1{zone}"),)))
    gateway = IPv6Interface(f"fe80::1{zone}/64")
    assert everything(replace(SERVED, ip6=gateway)) == everything(replace(SERVED, ip6=IPv6Interface("fe80::1/64")))


@pytest.mark.parametrize(
    "changed",
    [
        {"name_servers": ("8.8.8.8\ndhcp-script=/tmp/x",)},
        {"mtu": "1450\ndhcp-script=/tmp/x"},
        {"vni": "200\ndhcp-script=/tmp/x"},
        {"dhcp4": ("10.20.0.100", "10.20.0.199,48h")},
        {"ip4": "10.20.0.1/24"},
        {"reservations": (Reservation("52:54:00:00:00:01", "10.20.0.9\nignore"),)},  # type: ignore[arg-type]
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_text_in_place_of_a_number_or_address_is_never_written(changed: dict[str, Any]) -> None:
    with pytest.raises((Invalid, TypeError, ValueError, AttributeError)):
        everything(replace(SERVED, **changed))


async def test_the_server_of_all_networks_refuses_such_values_too() -> None:
    dns = DnsmasqDns(Path("/nowhere"), (IPv4Address("10.0.0.1"),))
    for text in TEXTS:
        with pytest.raises(Invalid, match="must be the name of a DNS domain"):
            await dns.apply([Zone(text, IPv4Address("10.20.0.1"))])
    for zone in ZONES:
        with pytest.raises(Invalid, match="must be an IPv4 or IPv6 address"):
            await dns.apply([Zone("app.example", IPv6Address(f"fe80::1{zone}"))])


def test_the_configuration_of_a_valid_network_has_only_plain_lines() -> None:
    text = everything(reserved(hostname="web1"))
    assert all(re.fullmatch(r"[A-Za-z0-9:=,./\[\] -]+", line) for line in text.splitlines())
    assert text.count("dhcp-script=") == 1
