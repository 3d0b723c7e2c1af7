"""Texts that would mean more than they say to mkfs, mount, Jinja2, Python, libvirt or a terminal, and where they go."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.client import Client
from tests.hostile.conftest import HANG
from tests.hostile.test_names import ENCODED, ask
from tests.integration.cluster import Cluster
from tests.kept import Kept

BASE = "/provisioner"
COMPUTED = 20.0
"""Seconds that a text may take in a separate process, which computes for a few of them."""
SCRIPT = "def install(**kwargs):\n    pass\n"
TEXTS = (
    " ",
    "--help",
    "-L",
    "-L root",
    "-L=root -F",
    "-L=-F",
    "-L=/etc/shadow",
    "-d=/etc",
    "--rootdir=/etc",
    "-L=$(id)",
    "-L=`id`",
    "-L=root;id",
    "'-L=root'",
    "-L=\u2028x",
    "..",
    "../../etc/passwd",
    "/../../etc",
    "/var/../../etc",
    "/a b",
    "/a,b",
    "/mnt\n/etc",
    "//./..",
    "/" + "a" * 300,
    "sda1",
    "../sda",
    "sda/../../x",
    "{prefix.__class__.__mro__}",
    "{prefix!r}:ff:f6:{vmid}{netid}",
    "{0.__init__.__globals__}",
    "{{ ''.__class__ }}",
    "{prefix}:ff:f6:{vmid}{netid}'/><x",
    "<script>",
    "]]>",
    "&xxe;",
    "a' OR '1'='1",
    "%s%n",
    "${IFS}",
    "a\x00b",
    "a\x1b[2Jb",
    "a\u202eb",
    "\U0001f4a9",
    "x" * 100_000,
    "9" * 5000,
    "-1",
    "1e3",
    "0x10",
    "\u0661",
)
NAMES = (" ", "sda1", "1e3", "0x10")
"""The texts that are names, and those that are not."""
USERDATA = (
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ vm_name.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__ }}",
    "{{ nonsense }}",
    "{% import os %}",
    "{% include '/etc/passwd' %}",
    "{% if %}",
    "{{",
    "{% for a in range(10**9) %}x{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 'x'.ljust(10**9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "{{ " + "[" * 300 + "]" * 300 + " }}",
    "{% if 1 %}" * 2000,
)
BOMBS = (
    "(" * 130_000,
    "-" * 250_000 + "1",
    "x" + ".a" * 120_000,
    "x" + "()" * 120_000,
    "x=" * 120_000 + "1",
    "f'" + "{x}" * 80_000 + "'",
    "9**" * 80_000 + "9",
    "not " * 60_000 + "1",
    "x = 1\0",
    "\u202e = 1",
    "import os\nos.kill(os.getppid(), 9)",
    "raise SystemExit",
)


def shortened(text: str) -> str:
    return text[:25].encode("unicode_escape").decode()


@pytest.fixture(scope="module")
def one(sandbox_cluster: Cluster) -> Iterator[Kept]:
    """One of each in the sandbox, which all tests here share."""
    cluster = sandbox_cluster

    def make() -> None:
        cluster.post(f"{BASE}/template/system/one", vcpus="1", vram="64")
        cluster.post(f"{BASE}/template/network/one")
        cluster.post(f"{BASE}/template/network/one/net/200")
        cluster.post(f"{BASE}/template/storage/one")
        cluster.post(f"{BASE}/template/storage/one/disk/sda", pool="vms", disk_size="1")
        cluster.post(f"{BASE}/template/userdata/one", data="#!/bin/sh\n")
        cluster.post(f"{BASE}/script/one", data=SCRIPT)
        words = ("system_template", "network_template", "storage_template", "userdata_template", "script")
        cluster.post(f"{BASE}/profile/one", **dict.fromkeys(words, "one"))

    def remove() -> None:
        for kind in (
            "profile",
            "script",
            "template/system",
            "template/network",
            "template/storage",
            "template/userdata",
        ):
            for each in cluster.get(f"{BASE}/{kind}"):
                cluster.ask("DELETE", f"{BASE}/{kind}/{each['name']}")

    kept = Kept(make, remove, lambda: remembered(cluster))
    yield kept
    kept.remove()


@pytest.fixture
def site(watched: Cluster, one: Kept) -> Iterator[Cluster]:
    """The sandbox with one of each, of which nothing has changed in the end."""
    with one.unchanged():
        yield watched


def remembered(api: Client) -> Any:
    return [api.get(f"{BASE}/{kind}") for kind in ("template", "script", "profile")]


def is_refused(api: Client, method: str, path: str, **values: str) -> str:
    begun = time.monotonic()
    status, body = api.ask(method, BASE + path, **values)
    assert time.monotonic() - begun < (COMPUTED if "data" in values else HANG)
    assert (status, body["code"]) == (510, "invalid-value"), (path, values, body)
    message: str = body["message"]
    assert message.isprintable() and len(message) < 700
    assert "root:" not in message, "that is a file of the server"
    return message


@pytest.mark.parametrize("text", TEXTS, ids=shortened)
def test_hostile_arguments_of_a_template_are_refused(site: Cluster, text: str) -> None:
    system = {"vcpus": "1", "vram": "64"}
    for argument in ("vcpus", "vram", "serial", "vnc", "vnc_bind", "node_limit", "node_selector", "start_with_node"):
        if argument == "node_limit" and text in NAMES:
            continue
        is_refused(site, "POST", "/template/system/new", **(system | {argument: text}))
    is_refused(site, "POST", "/template/network/new", mac_template=text)
    is_refused(site, "POST", "/template/network/one/net", vni=text)
    disk = {"pool": "vms", "disk_size": "1", "filesystem": "ext4", "mountpoint": "/"}
    for argument in ("disk_size", "filesystem", "filesystem_arg", "mountpoint"):
        is_refused(site, "POST", "/template/storage/one/disk/sdb", **(disk | {argument: text}))
    is_refused(site, "POST", "/template/storage/one/disk", **disk, disk_id=text)


@pytest.mark.parametrize("text", TEXTS, ids=shortened)
def test_hostile_arguments_of_a_script_are_refused(site: Cluster, text: str) -> None:
    words = ("system_template", "network_template", "storage_template", "userdata_template", "script")
    profile = dict.fromkeys(words, "one")
    is_refused(site, "POST", "/profile/new", **profile, arg=f"{text}=x" if text not in NAMES else text)


@pytest.mark.parametrize("text", USERDATA, ids=shortened)
def test_hostile_userdata_is_refused(site: Cluster, text: str) -> None:
    is_refused(site, "POST", "/template/userdata/new", data=text)
    is_refused(site, "PUT", "/template/userdata/one", data="#cloud-config\n" + text)


@pytest.mark.parametrize("text", BOMBS, ids=shortened)
def test_hostile_scripts_are_refused_and_do_not_block_the_server(site: Cluster, text: str) -> None:
    message = is_refused(site, "POST", "/script/new", data=text)
    assert message.startswith("Cannot use data as a script: ")
    is_refused(site, "PUT", "/script/one", data=text)
    begun = time.monotonic()
    site.get("/node")
    assert time.monotonic() - begun < 1


def test_a_script_is_never_run_at_upload(site: Cluster, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    lines = (f"open({str(trace)!r}, 'w')", f"@(lambda f: open({str(trace)!r}, 'w'))", SCRIPT)
    site.post(f"{BASE}/script/new", data="\n".join(lines))
    site.delete(f"{BASE}/script/new")
    assert not trace.exists()


def test_values_that_are_too_large_are_refused(site: Cluster) -> None:
    for path, text in (("/template/userdata/new", "#"), ("/script/new", SCRIPT + "#")):
        assert "must have at most 262144 bytes" in is_refused(site, "POST", path, data=text + "x" * 262144)
        status, body = site.ask("POST", BASE + path, data=text + "x" * (3 << 20))
        assert (status, body["code"]) == (413, "body-too-large")


CONTENT = "#cloud-config\r\nruncmd:\n  - [sh, -c, 'a+b & c=%41 ü']\n\n\n"


def multipart(name: str, text: str) -> bytes:
    parts = (
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + name.encode(),
        b'--b\r\nContent-Disposition: form-data; name="data"; filename="../../x"\r\n\r\n' + text.encode(),
    )
    return b"\r\n".join(parts) + b"\r\n--b--\r\n"


def test_text_arrives_unchanged_however_it_is_sent(site: Cluster) -> None:
    path = f"{BASE}/template/userdata"
    sent: dict[str, dict[str, Any]] = {
        "form": {"form": {"name": "form", "data": CONTENT}},
        "file": {"body": multipart("file", CONTENT), "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
    }
    raw = {"plain": "text/plain", "bytes": "application/octet-stream", "curl": "application/x-www-form-urlencoded"}
    for name, kind in raw.items():
        sent[name] = {"query": {"name": name}, "body": CONTENT.encode(), "headers": {"Content-Type": kind}}
    in_json = json.dumps({"name": "json", "data": CONTENT}).encode()
    sent["json"] = {"body": in_json, "headers": {"Content-Type": "application/json"}}
    for name, how in sent.items():
        reply = site.send("POST", path, **how)
        assert (reply.status, reply.json["name"]) == (200, name), reply.body
        assert site.get(f"{path}/{name}")[0]["userdata"] == CONTENT, name
        site.delete(f"{path}/{name}")


@pytest.mark.parametrize("name", ENCODED, ids=lambda name: name[:30])
def test_hostile_names_in_a_path_are_refused(site: Cluster, name: str) -> None:
    for method, path in (
        ("GET", "/template/system/{}"),
        ("DELETE", "/template/system/{}"),
        ("POST", "/template/network/{}?vni=1"),
        ("GET", "/template/network/one/net/{}"),
        ("POST", "/template/network/one/net/{}"),
        ("DELETE", "/template/network/{}/net/200"),
        ("GET", "/template/storage/one/disk/{}"),
        ("POST", "/template/storage/one/disk/{}?pool=vms&disk_size=1"),
        ("DELETE", "/template/storage/{}/disk/sda"),
        ("PUT", "/template/userdata/{}?data=x"),
        ("PUT", "/script/{}?data=def+install(**k):pass"),
        ("GET", "/profile/{}"),
        ("DELETE", "/profile/{}"),
    ):
        status, headers, body = ask(site, method, BASE + path.format(name))
        assert headers["Content-Type"] == "application/json" and "X-Forged" not in headers
        said = json.loads(body)
        if status == 200:  # that is what `.` and `..` lead to
            assert method == "GET", (method, path, body)
        else:
            assert status in (404, 405, 510), (method, path, body)
            assert said["code"] == "invalid-value" or said["code"].endswith(("not-found", "not-allowed")), body


def test_a_query_of_hostile_texts_finds_nothing(site: Cluster) -> None:
    for text in TEXTS:
        if len(text) < 300:
            for path in ("/template/system", "/template/userdata", "/script", "/profile"):
                for argument in ("limit", "name"):
                    status, body = site.ask("GET", f"{BASE}{path}?{argument}={quote(text)}")
                    if argument == "limit" and status == 200:
                        assert {each["name"] for each in body} <= {"one", "empty"}
                    else:
                        assert body == [] or (status, body["code"]) == (510, "invalid-value"), (path, text)
