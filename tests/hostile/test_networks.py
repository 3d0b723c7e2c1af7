"""Texts that would mean more than they say to dnsmasq, nft, ip or a terminal, in every argument of a network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.client import Client
from tests.hostile.conftest import HANG
from tests.hostile.test_names import ENCODED, ask
from tests.integration.cluster import Cluster
from tests.kept import Kept

MANAGED = {
    "vni": "200",
    "description": "app",
    "nettype": "managed",
    "ip4_network": "10.20.0.0/24",
    "ip4_gateway": "10.20.0.1",
    "dhcp4": "on",
    "dhcp4_start": "10.20.0.100",
    "dhcp4_end": "10.20.0.199",
}
TEXTS = (
    " ",
    "--dhcp-script=/bin/sh",
    "x --dhcp-script=/bin/sh",
    "x\ndhcp-script=/bin/sh",
    "x\r\nconf-file=/etc/shadow",
    "10.20.0.5\n",
    "10.20.0.5,set:x",
    "10.20.0.5/24",
    "10.20.0.5#5353",
    "10.20.0.5@lo",
    "fd00::1%eth0",
    "fe80::1%--conf-file=/etc/shadow",
    "10.20.0.0/24 dev lo",
    "10.20.0.0/999",
    "10.20.0.0/-1",
    "10.20.0.5/24; ip link delete lo",
    "0x0a.0x14.0.5",
    "010.020.000.005",
    "169083909",
    "10.20.0.5\u0660",
    "1\u0660.20.0.5",
    "1/0",
    "52:54:00:00:00",
    "ff:ff:ff:ff:ff:ff",
    "00:00:00:00:00:00",
    "52:54:00:00:00:0g",
    "52:54:00:00:00:01,ignore",
    "*:*:*:*:*:*",
    "id:*",
    "tag:x",
    "infinite",
    "12h",
    "../../etc/passwd",
    "$(id)",
    "`id`",
    "${IFS}",
    "{{7*7}}",
    "%s%n",
    "a\x00b",
    "a\x1b[2Jb",
    "a\u202eb",
    "\U0001f4a9",
    "x" * 254,
    "x" * 100_000,
    "9" * 5000,
)
NETWORK_ARGUMENTS = (
    *("description", "domain", "name_server", "ip4_network", "ip4_gateway", "ip6_network"),
    *("dhcp4", "dhcp4_start", "dhcp4_end"),
)
RULES = (
    "accept; flush ruleset",
    "accept\nflush ruleset",
    "accept\\\nflush ruleset",
    "accept; }; chain x { drop;",
    "accept } chain x { drop",
    'include "/etc/shadow"',
    "jump vxlan-201-in",
    "goto input",
    "ip saddr vmap { 10.0.0.1 : drop }",
    "add @blocked { ip saddr }",
    "ip saddr @blocked drop",
    "meta mark set 1 accept",
    "ct mark set 1 accept",
    "notrack accept",
    "define x = 1 accept",
    'iifname "eth0" accept',
    'accept comment "a\nb"',
    "accept # and more",
    "accept\x00drop",
    "ip saddr localhost accept",
    "ip saddr example.org accept",
    "tcp dport $ports accept",
    "tcp dport ssh-in-no-such-service accept",
    "dnat to 10.0.0.1",
    "masquerade",
    "redirect to :80",
    "queue num 0",
    "dup to 10.0.0.1",
    "fwd to lo",
    "tproxy to :80",
    "counter",
    "tcp dport 22",
    "{",
    "}",
    '"',
    "'",
    "accept accept",
    "\u202eaccept",
    "(" * 900,
    "x" * 1001,
    "x" * 100_000,
)


def shortened(text: str) -> str:
    return text[:25].encode("unicode_escape").decode()


@pytest.fixture(scope="module")
def network(sandbox_cluster: Cluster) -> Iterator[Kept]:
    """A network of the sandbox that all tests here share."""
    cluster = sandbox_cluster

    def remove() -> None:
        for network in cluster.get("/network"):
            cluster.ask("DELETE", f"/network/{network['vni']}")

    kept = Kept(lambda: cluster.post("/network", **MANAGED), remove, lambda: remembered(cluster))
    yield kept
    kept.remove()


@pytest.fixture
def site(watched: Cluster, network: Kept) -> Iterator[Cluster]:
    """The sandbox with a network, of which nothing has changed in the end."""
    with network.unchanged():
        yield watched


def remembered(api: Client) -> Any:
    return [[each | {"failed": {}} for each in api.get("/network")], api.get("/network/app/lease"),
            api.get("/network/app/acl")]  # fmt: skip


def is_refused(api: Client, method: str, path: str, **values: str) -> None:
    begun = time.monotonic()
    status, body = api.ask(method, path, **values)
    assert time.monotonic() - begun < HANG
    assert (status, body["code"]) == (510, "invalid-value"), body
    assert body["message"].isprintable() and len(body["message"]) < 600
    assert "root:" not in body["message"], "that is a file of the server"


@pytest.mark.parametrize("text", TEXTS, ids=shortened)
def test_hostile_arguments_of_a_network_are_refused(site: Cluster, text: str) -> None:
    for argument in NETWORK_ARGUMENTS:
        if argument == "domain" and text in ("infinite", "12h", "169083909"):
            continue  # which are domains as good as any, or none for their digits
        if argument == "description" and text in ("infinite", "12h", "10.20.0.5", "010.020.000.005", "0x0a.0x14.0.5"):
            continue
        new = MANAGED | {"vni": "201", "description": "other", "domain": "other.example", argument: text}
        is_refused(site, "POST", "/network", **new)
        is_refused(site, "PUT", "/network/app", **{argument: text})


@pytest.mark.parametrize("text", TEXTS, ids=shortened)
def test_an_invalid_ipv6_gateway_is_never_used(site: Cluster, text: str) -> None:
    status, body = site.ask("PUT", "/network/app", ip6_network="fd00:20::/64", ip6_gateway=text)
    if status == 200:
        assert body["warnings"][0].isprintable()
        assert site.get("/network/app")[0]["ip6"]["gateway"] == "fd00:20::1"
        site.ask("PUT", "/network/app", ip6_network="")
    else:
        assert body["code"] == "invalid-value"


@pytest.mark.parametrize("text", TEXTS, ids=shortened)
def test_hostile_arguments_of_a_lease_are_refused(site: Cluster, text: str) -> None:
    lease = {"macaddress": "52:54:00:00:00:01", "ipaddress": "10.20.0.50", "hostname": "web1"}
    for path in ("lease", "dhcp"):
        for argument in lease:
            is_refused(site, "POST", f"/network/app/{path}", **(lease | {argument: text}))


@pytest.mark.parametrize("text", TEXTS, ids=shortened)
def test_hostile_arguments_of_an_acl_are_refused(site: Cluster, text: str) -> None:
    acl = {"description": "ssh", "direction": "in", "rule": "tcp dport 22 accept", "order": "0"}
    for argument in acl:
        if argument == "description" and text in ("infinite", "12h", "169083909", "010.020.000.005", "0x0a.0x14.0.5"):
            continue  # which are names
        if argument == "order" and text == "169083909":
            continue  # which is a number
        is_refused(site, "POST", "/network/app/acl", **(acl | {argument: text}))


@pytest.mark.parametrize("rule", RULES, ids=shortened)
def test_hostile_rules_are_refused(site: Cluster, rule: str) -> None:
    is_refused(site, "POST", "/network/app/acl", description="bad", direction="in", rule=rule)


@pytest.mark.parametrize("name", ENCODED, ids=lambda name: name[:30])
def test_hostile_names_in_a_path_are_refused(site: Cluster, name: str) -> None:
    codes = (
        "network-not-found",
        "lease-not-found",
        "acl-not-found",
        "invalid-value",
        "not-found",
        "method-not-allowed",
    )
    for method, path in (
        ("GET", "/network/{}"),
        ("PUT", "/network/{}?domain=x"),
        ("DELETE", "/network/{}"),
        ("GET", "/network/{}/lease"),
        ("DELETE", "/network/{}/lease/web1"),
        ("GET", "/network/app/lease/{}"),
        ("DELETE", "/network/app/dhcp/{}"),
        ("GET", "/network/app/acl/{}"),
        ("DELETE", "/network/app/acl/{}?direction=in"),
    ):
        status, headers, body = ask(site, method, path.format(name))
        assert headers["Content-Type"] == "application/json" and "X-Forged" not in headers
        if status == 200:  # an ACL that is not there is an empty list; so is what `..` leads to
            assert method == "GET" and json.loads(body) in ([], site.get("/network"), site.get("/network/app"))
        else:
            assert status in (404, 405, 510) and json.loads(body)["code"] in codes, (method, path, body)


def test_a_query_of_hostile_texts_finds_nothing(site: Cluster) -> None:
    for text in TEXTS:
        if len(text) < 300:
            for path in ("/network", "/network/app/lease", "/network/app/acl"):
                status, body = site.ask("GET", f"{path}?limit={quote(text)}")
                assert body == [] or (status, body["code"]) == (510, "invalid-value"), (path, text)
