"""The hooks of the folder `hooks`, each switched on and run as pvcd runs it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pvcd.declare.operations import Operation
from pvcd.plugin.loading import load
from pvcd.plugin.registry import collect
from pvcd.settings import PluginsSection
from pvcd.sitehooks.envelope import envelope
from pvcd.sitehooks.execution import Ending, execute
from pvcd.sitehooks.folder import opened, scan
from pvcd_plugins.sandbox import ceph
from tests.integration.cluster import Cluster, Guests
from tests.integration.test_vm_rbd import Volumes, on_volumes, volumes

__all__ = ["volumes"]
HOOKS = Path(__file__).parents[2] / "hooks"
EXAMPLES = sorted(str(path.relative_to(HOOKS)) for path in HOOKS.glob("*.d/*"))
KINDS = collect(load(PluginsSection())).known_operations


class Site:
    """A hooks directory with all examples enabled. It is not below /tmp, because hooks have a private /tmp."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "hooks"
        shutil.copytree(HOOKS, self.directory)
        for example in EXAMPLES:
            (self.directory / example).chmod(0o755)

    def configure(self, **values: object) -> None:
        lines = [f"{name}={value}\n" for name, value in values.items()]
        (self.directory.parent / "hooks.conf").write_text("".join(lines))

    async def run(self, operation: str, phase: str, arguments: dict[str, Any], node: str = "") -> Ending:
        kind = KINDS[operation]
        told = envelope(kind, Operation(operation, arguments), time=1.0, place=kind.place, node=node)
        told |= {"phase": phase, "attempt": 1, "seconds": 30.0, "directory": str(self.directory)}
        with opened(self.directory, operation, phase) as (hook,):
            return await execute(hook, told | {"hook": hook.name}, 30.0)


@pytest.fixture
def site() -> Iterator[Site]:
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        yield Site(directory)
    finally:
        shutil.rmtree(directory)


class Web:
    """A server that keeps what is sent to it, and answers with a document."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.answer: object = {}
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                web.received.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.do_GET()

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(web.answer).encode())

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_disabled_documented_and_in_its_directory(site: Site, example: str) -> None:
    assert (HOOKS / example).stat().st_mode & 0o111 == 0
    assert f"| `{example}` |" in (HOOKS / "README.md").read_text()
    phases = {name: kind.phases for name, kind in KINDS.items()}
    assert {entry.place: entry.reason for entry in scan(site.directory, phases)}[example] is None


def test_every_setting_of_the_examples_is_used() -> None:
    given = re.findall("^([A-Z_]+)=", (HOOKS / "hooks.conf").read_text(), re.MULTILINE)
    texts = "".join((HOOKS / example).read_text() for example in EXAMPLES)
    assert len(given) > 10
    assert [name for name in given if not re.search(rf"\b{name}\b", texts)] == []


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("<domain><name>prod-web1</name></domain>", ""),
        ("<domain><metadata><name>web1</name></metadata><name>test-1</name></domain>", ""),
        ("<domain><name>web1</name></domain>", "the name must match (prod|test)-[a-z0-9-]+; got 'web1'"),
        ("<domain><name>prod-web1\nx</name></domain>", "must match"),
        ("<domain></domain>", "got ''"),
        ("<domain", ""),
        ('<!DOCTYPE d [<!ENTITY a "aaaa">]><domain><name>&a;</name></domain>', ""),
    ],
)
async def test_the_naming_policy_example(site: Site, xml: str, words: str) -> None:
    site.configure(NAME_PATTERN="(prod|test)-[a-z0-9-]+")
    ending = await site.run("vm-define", "pre", {"xml": xml})
    assert (ending.status, words in ending.sentence) == (1 if words else 0, True), ending


async def test_the_quota_example(site: Site, web: Web) -> None:
    site.configure(API=web.url, MAX_VMS=2)
    arguments = {"name": "web3", "profile": "web", "check": False}
    web.answer = [{"name": "web1"}]
    assert (await site.run("provisioner-create", "pre", arguments)).sentence == ""
    web.answer = [{"name": "web1"}, {"name": "web2"}]
    said = "2 VMs exist and 2 are allowed: remove one first"
    assert (await site.run("provisioner-create", "pre", arguments)).sentence == said
    site.configure(API="http://127.0.0.1:1", MAX_VMS=2)
    assert "cannot count the VMs" in (await site.run("provisioner-create", "pre", arguments)).sentence


async def test_the_webhook_example(site: Site, web: Web) -> None:
    site.configure(WEBHOOK_URL=web.url)
    ending = await site.run("vm-start", "post", {"vm": "web1", "state": "start"})
    assert ending.sentence == ""
    told = json.loads(web.received[0])
    assert (told["operation"], told["arguments"]["vm"]) == ("vm-start", "web1")


async def test_the_node_death_notification_example(site: Site, web: Web) -> None:
    site.configure(NOTIFY_URL=web.url)
    assert (await site.run("node-dead", "post", {"node": "hv2"}, node="hv1")).sentence == ""
    assert web.received == [b"Node hv2 is dead (reported by hv1)."]
    site.configure(NOTIFY_URL="http://127.0.0.1:1")
    assert "curl" in (await site.run("node-dead", "post", {"node": "hv2"}, node="hv1")).sentence


class NameServer:
    """A name server that accepts every update (RFC 2136) and records it."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.received: list[bytes] = []

    def serve(self) -> None:
        while True:
            message, client = self.socket.recvfrom(4096)
            if not message:
                return
            self.received.append(message)
            update = 5 << 3
            self.socket.sendto(message[:2] + bytes([0x80 | update, 0]) + bytes(8), client)

    def end(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    server = NameServer()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server.end()
    thread.join()
    server.socket.close()


async def test_the_name_server_update_example(site: Site, name_server: NameServer) -> None:
    values = {"DNS_ZONE": "vms.example.com", "DNS_SERVER": "127.0.0.1", "DNS_PORT": name_server.port}
    site.configure(**values, DNS_KEY="", DNS_TTL=60)
    lease = {"vni": 200, "mac": "52:54:00:00:00:01", "hostname": "web1"}
    for action, address in (("taken", "10.20.0.101"), ("taken", "fd20::101"), ("ended", "10.20.0.101")):
        ending = await site.run("network-lease", "post", {**lease, "action": action, "address": address})
        assert ending.sentence == "", ending
    sent = [message for message in name_server.received if message[2] >> 3 & 15 == 5]
    assert [message.count(b"\x04web1") for message in sent] == [1, 1, 1]
    given = [socket.inet_aton("10.20.0.101") in sent[0], socket.inet_pton(socket.AF_INET6, "fd20::101") in sent[1]]
    assert given == [True, True] and socket.inet_aton("10.20.0.101") not in sent[2]
    nameless = {**lease, "hostname": None, "action": "taken", "address": "10.20.0.102"}
    assert (await site.run("network-lease", "post", nameless)).sentence == ""
    assert len([message for message in name_server.received if message[2] >> 3 & 15 == 5]) == 3


def test_the_volume_backup_example(cluster: Cluster, guests: Guests, volumes: Volumes, site: Site) -> None:
    backups = site.directory.parent / "backups"
    conf = ceph.conf(cluster.directory / "ceph").read_text()
    keyring = site.directory.parent / "keyring"
    shutil.copy(cluster.directory / "ceph" / "client.admin.keyring", keyring)
    own = site.directory.parent / "ceph.conf"
    own.write_text(re.sub(r"(\[client\]\n)keyring = .*", rf"\1keyring = {keyring}", conf))
    site.configure(API=cluster.api, CEPH_CONF=own, BACKUP_DIRECTORY=backups)
    cluster.post("/vm", xml=on_volumes(guests, "web1", volumes.bootable("web1_sda")))

    def remove(**arguments: object) -> str:
        return asyncio.run(site.run("vm-remove", "pre", {"vm": "web1", **arguments})).sentence

    assert remove(delete_disks=False) == "" and not backups.exists()
    cluster.post("/vm/web1/state", state="start")
    cluster.until_state("web1", "start", True, 60)
    assert "VM 'web1' is running: stop it first" in remove(delete_disks=True)
    cluster.post("/vm/web1/state", state="stop")
    cluster.until_state("web1", "stop", False, 60)
    assert remove(delete_disks=True) == ""
    (image,) = backups.iterdir()
    assert image.name.startswith("vms_web1_sda.") and b"pvcd boot sector" in image.read_bytes()[:512]
    volumes.remove_all()
    assert "cannot export 'vms/web1_sda'" in remove(delete_disks=True)
    assert list(backups.iterdir()) == [image]
