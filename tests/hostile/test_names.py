"""Names that are none: paths in them, NUL, line ends, lookalike letters, and whole books."""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

import pytest

from tests.client import Client
from tests.hostile.conftest import HANG
from tests.hostile.raw import port_of
from tests.integration.cluster import Cluster
from tests.servers import definition

ENCODED = (
    ".",
    "..",
    "%2e%2e",
    "../node",
    "..%2fnode",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2f",
    "%2fweb1",
    "web1%2f",
    "web1%2fstate",
    "web1%2freport",
    "web1/report",
    "web1%5c..",
    "%00",
    "web1%00",
    "web1%00.xml",
    "%0a",
    "web1%0d%0aX-Forged:%20yes",
    "web1%20",
    "%20web1",
    "web1%09",
    "WEB1",
    "web1.",
    "web1;jsessionid=1",
    "web1%3fx",
    "web1%23x",
    "%25",
    "%",
    "%zz",
    "%ff",
    "%c0%af",
    "%ed%a0%80",
    "%f4%90%80%80",
    "w%D0%B5b1",  # a Cyrillic e
    "%EF%BD%97%EF%BD%85%EF%BD%82%EF%BC%91",  # full width
    "web%E2%81%B1",
    "web1%E2%80%8B",  # a blank of no width
    "%E2%80%AE1bew",  # right to left
    "web%CC%811",
    "%F0%9F%92%A9",
    "*",
    "~root",
    "$(id)",
    "`id`",
    "'%20OR%201=1--",
    "%7B%7Bvm%7D%7D",
    "--help",
    "-",
    "None",
    "null",
    "0" * 32,
    "a" * 257,
    "a" * 8000,
)
REQUESTS = (
    ("GET", "/vm/{}"),
    ("GET", "/vm/{}/state"),
    ("GET", "/vm/{}/console"),
    ("POST", "/vm/{}?autostart"),
    ("POST", "/vm/{}/state?state=start"),
    ("POST", "/vm/{}/node?action=migrate"),
    ("PUT", "/vm/{}?xml=x"),
    ("DELETE", "/vm/{}"),
    ("GET", "/node/{}"),
    ("POST", "/node/{}/domain-state?domain-state=flush"),
    ("POST", "/node/{}/coordinator-state?coordinator-state=secondary"),
    ("GET", "/storage/ceph/osd/{}"),
    ("GET", "/storage/ceph/pool/{}"),
    ("GET", "/storage/ceph/volume/vms/{}"),
    ("GET", "/storage/ceph/volume/snapshot/vms/web1/{}"),
    ("DELETE", "/storage/ceph/osd/{}?yes_i_really_mean_it"),
    ("DELETE", "/storage/ceph/pool/{}?yes_i_really_mean_it"),
    ("PUT", "/storage/ceph/volume/vms/{}?size=1G"),
    ("DELETE", "/storage/ceph/volume/vms/{}"),
    ("DELETE", "/storage/ceph/volume/snapshot/vms/web1/{}"),
)
THINGS = ("vm", "node", "osd", "pool", "volume", "snapshot")
REFUSALS = ("invalid-value", "not-found", "method-not-allowed", *(f"{thing}-not-found" for thing in THINGS))
NAMES: tuple[str, ...] = (
    "",
    " ",
    "..",
    "../web2",
    "/web2",
    "web2/",
    "web2\x00",
    "web2\n",
    "w\u0435b2",
    "\uff57eb2",
    "web\u200b2",
    "web2\u202e",
    "\U0001f4a9",
    "-web2",
    ".web2",
    "web 2",
    "web2;id",
    "web2,web3",
    "$(id)",
    "<web2>",
    "&#0;",
    "*",
    "a" * 129,
)


def ask(client: Client, method: str, path: str) -> tuple[int, dict[str, Any], bytes]:
    """Without a library that would put the path right."""
    connection = HTTPConnection("127.0.0.1", port_of(client.api), timeout=2 * HANG)
    try:
        begun = time.monotonic()
        connection.putrequest(method, "/api/v1" + path)
        connection.endheaders()
        reply = connection.getresponse()
        body = reply.read()
        assert time.monotonic() - begun < HANG
        return reply.status, dict(reply.getheaders()), body
    finally:
        connection.close()


@pytest.mark.parametrize("name", ENCODED, ids=lambda name: name[:30])
def test_hostile_names_in_a_path_are_refused(victim: Cluster, name: str) -> None:
    for method, path in REQUESTS:
        status, headers, body = ask(victim, method, path.format(name))
        assert status in (404, 405, 510), (method, path, body)
        assert headers["Content-Type"] == "application/json" and "X-Forged" not in headers
        failure = json.loads(body)
        assert failure["code"] in REFUSALS, (method, path, failure)
        assert len(failure["message"]) < 9000 and failure["message"].isprintable()


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:20].encode("unicode_escape").decode())
def test_no_vm_can_have_a_hostile_name(victim: Cluster, name: str) -> None:
    for xml in (definition(name), definition("web2").replace("web2", f"<![CDATA[{name}]]>")):
        status, body = victim.ask("POST", "/vm", xml=xml)
        assert (status, body["code"]) == (510, "invalid-value")
        assert body["message"].isprintable() and len(body["message"]) < 600


@pytest.mark.parametrize("name", [*NAMES, "a" * 100_000], ids=lambda name: name[:20].encode("unicode_escape").decode())
@pytest.mark.parametrize("value", ["selector", "limit", "state", "node", "action"])
def test_hostile_values_are_refused(victim: Cluster, value: str, name: str) -> None:
    path = {"selector": "/vm/web1", "limit": "/vm/web1", "state": "/vm/web1/state"}.get(value, "/vm/web1/node")
    values = {"action": "migrate", "node": name} if value == "node" else {value: name}
    status, body = victim.ask("POST", path, **values)
    if value == "limit" and not name.strip():
        assert status == 200, "which takes away the limit that it does not have"
        return
    assert (status, body["code"]) in ((510, "invalid-value"), (510, "no-suitable-node"))
    assert body["message"].isprintable()


def test_a_query_of_hostile_names_finds_only_matches(victim: Cluster) -> None:
    for name in NAMES:
        status, body = victim.ask("GET", "/vm?limit=" + quote(name))
        assert status == 510 or [vm["name"] for vm in body] in ([], ["web1"])
        status, body = victim.ask("GET", "/vm?node=" + quote(name))
        assert (status, body["code"]) in ((510, "node-not-found"), (510, "invalid-value"))
