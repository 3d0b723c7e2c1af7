"""The metadata API as guests see it: the real server at its address, guests in namespaces, and Debian's cloud-init."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pvcd import Create, Failed, Record, Role
from pvcd.clock import SystemClock
from pvcd.daemon.components import make_context, open_components
from pvcd.plugin.loading import Plugin, load
from pvcd.plugin.registry import collect
from pvcd.settings import PluginsSection
from pvcd.store.memory import MemoryServer, MemoryTree
from pvcd.testing import SimulatedCluster, minimal_settings
from pvcd_plugins.provisioner.components import METADATA, metadata_component
from pvcd_plugins.provisioner.metadata import ADDRESS, SERIAL, server
from pvcd_plugins.provisioner.metadata.server import MetadataServer
from pvcd_plugins.sandbox import network as network_of_our_own
from pvcd_plugins.vm.service import NETWORK_INDEX
from tests.cloud_init import Outcome, boot, needs_cloud_init
from tests.hosts import Guest, Host
from tests.metadata_api import (
    BRIDGE,
    DB,
    FOR_ALL,
    GATEWAY,
    KEYS,
    NOBODY,
    WEB,
    describe,
    lease,
    network,
    part,
    uuid_of,
    vm,
)

LIMIT = 60.0
LONG = 600.0
WEB_AT, DB_AT, OTHER_AT = "10.20.0.50", "10.20.0.51", "10.21.0.50"
OTHER = "52:54:00:00:00:21"
CHANGED = [Path(path) for path in ("/root/from-userdata", "/home/cloud", "/var/lib/cloud/instance", "/run/cloud-init")]


def ip(*words: str) -> str:
    return subprocess.run(("ip", *words), check=True, capture_output=True, text=True, timeout=LIMIT).stdout


@pytest.fixture(scope="module", autouse=True)
def node() -> Iterator[None]:
    """The bridges of two networks with their gateways, and a link of the site, in a namespace of this module's own.

    The sandbox of other tests has the metadata address in theirs.
    """
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    links = {BRIDGE: f"{GATEWAY}/24", "vmbr201": "10.21.0.1/24", "site0": "192.168.99.1/24"}
    with network_of_our_own.apart():
        for name, address in links.items():
            ip("link", "add", name, "type", "bridge")
            ip("link", "set", name, "up")
            ip("address", "add", address, "dev", name)
        yield


class Primary:
    """The part of a primary's agent that serves guest metadata, with records in memory."""

    def __init__(self, **settings: Any) -> None:
        plugins = [
            *load(PluginsSection(disabled=frozenset({"provisioner"}))),
            Plugin("it", part(), "given to the test"),
        ]
        registry = collect(plugins)
        opened = tuple(each for each in registry.components if each.key in (NETWORK_INDEX, METADATA))
        registry = dataclasses.replace(registry, components=opened)
        values = minimal_settings(registry, metadata=settings)
        tree = MemoryTree(MemoryServer())
        self.context = make_context(Role.PRIMARY, values, registry, tree, SystemClock(), "hv1")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.context.store.open()
        await self.create(network(), network(201, "10.21.0"))
        await self.create(vm("web1", WEB), vm("db1", DB), vm("other1", OTHER, "vmbr201"))
        try:
            async with open_components(self.context):
                await self.hold(LONG)
                yield
        finally:
            await self.context.store.close()

    async def create(self, *records: Record) -> None:
        await self.context.store.write(*map(Create, records))

    async def hold(self, seconds: float) -> None:
        await self.context[METADATA].hold(seconds)


@pytest.fixture
async def primary() -> AsyncIterator[Primary]:
    made = Primary()
    async with made.running():
        yield made


class Client(Guest):
    """A guest that has an address, and asks."""

    def __init__(self, name: str, mac: str, address: str, bridge: str = BRIDGE, gateway: str = GATEWAY) -> None:
        super().__init__(name, None, bridge, mac)  # type: ignore[arg-type]  # at this process
        self.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.run("ip", "route", "add", "default", "via", gateway)

    async def ask(self, path: str, *words: str) -> tuple[int, str]:
        """The status, 0 if there was no answer, and the text."""
        command = ("curl", "-s", "--max-time", "5", "-w", "\n%{http_code}", *words, f"http://{ADDRESS}{path}")
        said = await asyncio.to_thread(self.run, *command, fine=False)
        text, _, status = said.rpartition("\n")
        return int(status), text

    async def told(self, *words: str) -> str | int:
        """Return the name in the metadata that the guest gets, or the status if it gets none."""
        status, text = await self.ask("/latest/meta-data/name", *words)
        return text if status == 200 else status


@pytest.fixture
def web() -> Iterator[Client]:
    with Client("web1", WEB, WEB_AT) as guest:
        yield guest


@pytest.fixture
def other() -> Iterator[Client]:
    with Client("other1", OTHER, OTHER_AT, "vmbr201", "10.21.0.1") as guest:
        yield guest


async def test_guests_get_their_own_metadata(primary: Primary, web: Client, other: Client) -> None:
    assert await web.told() == "web1"
    assert await other.told() == "other1"
    assert await web.ask("/latest/meta-data/local-ipv4") == (200, WEB_AT)
    assert await web.ask("/latest/user-data") == (200, FOR_ALL.format(name="web1"))


async def test_a_guest_gets_its_metadata_over_any_route(primary: Primary, web: Client) -> None:
    web.run("ip", "route", "add", f"{ADDRESS}/32", "dev", "eth0")
    assert await web.told() == "web1"
    web.run("ip", "route", "replace", f"{ADDRESS}/32", "via", GATEWAY)
    assert await web.told() == "web1"


async def test_a_client_that_is_no_vm_gets_nothing(primary: Primary) -> None:
    with Client("foreign", NOBODY, "10.20.0.60") as foreign:
        assert await foreign.ask("/latest/user-data") == (404, "No VM is known at this address.\n")


async def test_the_site_and_the_node_itself_get_nothing(primary: Primary) -> None:
    with Client("site", WEB, "192.168.99.50", "site0", "192.168.99.1") as site:
        assert await site.told() == 404
    reader, writer = await asyncio.open_connection(ADDRESS, 80)
    writer.write(b"GET /latest/user-data HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 404")
    writer.close()


async def test_headers_do_not_change_the_answer(primary: Primary, web: Client) -> None:
    said = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Host", "X-Instance-ID")
    words = [word for name in said for word in ("-H", f"{name}: {DB_AT}")]
    assert await web.told(*words) == "web1"
    with Client("foreign", NOBODY, "10.20.0.60") as foreign:
        assert await foreign.told(*words) == 404


async def test_a_guest_with_a_stolen_address_does_not_get_the_metadata_of_its_owner(primary: Primary) -> None:
    with Client("web1", WEB, DB_AT) as thief:
        assert await thief.told() == "web1"
        await primary.create(lease(DB, DB_AT))
        assert await thief.told() == 404


async def test_an_address_of_another_network_leads_nowhere(primary: Primary, web: Client, other: Client) -> None:
    web.run("ip", "address", "add", f"{OTHER_AT}/32", "dev", "eth0")
    assert await web.told("--interface", OTHER_AT, "--max-time", "2") == 0
    assert await other.told() == "other1"
    # Whoever is at both bridges and asks by one with the address of the other hears nothing of either.
    other.run("ip", "address", "flush", "dev", "eth0")
    web.plug("eth1", None, "tapboth", "vmbr201")
    web.run("ip", "link", "set", "eth1", "address", OTHER)
    web.run("ip", "address", "add", f"{OTHER_AT}/32", "dev", "eth1")
    await primary.create(lease(OTHER, OTHER_AT, 201))
    other.run("ip", "link", "set", "eth0", "down")
    assert await web.told("--interface", OTHER_AT) == 404


async def test_a_token_is_valid_only_unchanged_and_for_its_guest(primary: Primary, web: Client) -> None:
    ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60"
    status, token = await web.ask("/latest/api/token", "-X", "PUT", "-H", ttl)
    assert status == 200
    assert await web.told("-H", f"X-aws-ec2-metadata-token: {token}") == "web1"
    assert await web.told("-H", f"X-aws-ec2-metadata-token: {token}0") == 401
    with Client("db1", DB, DB_AT) as neighbour:
        assert await neighbour.told("-H", f"X-aws-ec2-metadata-token: {token}") == 401


# The address


def held() -> bool:
    return f"{ADDRESS}/32" in ip("address", "show", "dev", "lo")


async def until(there: bool) -> None:
    def wait() -> None:
        end = time.monotonic() + LIMIT
        while held() is not there:
            assert time.monotonic() < end
            time.sleep(0.05)

    await asyncio.to_thread(wait)


async def test_the_metadata_address_expires_unless_renewed(primary: Primary, web: Client) -> None:
    await primary.hold(1)
    await until(there=False)
    assert await web.told("--max-time", "1") == 0
    await primary.hold(LONG)
    assert await web.told() == "web1"


async def test_the_metadata_address_follows_the_primary(web: Client) -> None:
    for _ in range(2):  # also from one that comes after another one
        primary = Primary()
        async with primary.running():
            assert held() and await web.told() == "web1"
        assert not held()


async def test_an_agent_has_the_metadata_address_while_it_is_primary() -> None:
    real = metadata_component(describe).open
    cluster = SimulatedCluster(["hv1", "hv2"], [part()], {METADATA: real}, without=["provisioner"])
    async with cluster:
        await until(there=True)
        assert METADATA in cluster.agents["hv1"].components
        await cluster.stop_agent("hv1")
        await cluster.advance(30)
        await until(there=True)
        assert METADATA in cluster.agents["hv2"].components
    assert not held()


async def test_a_port_in_use_is_reported(primary: Primary) -> None:
    second = MetadataServer(primary.context, None)  # type: ignore[arg-type]
    with pytest.raises(Failed, match=f"Cannot listen at {ADDRESS}:80: Address already in use."):
        await second.hold(LONG)


# Clients that want too much


async def connected(count: int, stack: contextlib.AsyncExitStack) -> list[asyncio.StreamReader]:
    """Connections on which nothing is said."""
    readers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection(ADDRESS, 80)
        stack.callback(writer.close)
        readers.append(reader)
    return readers


async def ended(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(LIMIT):
            assert await reader.read() == b""


async def test_the_connections_of_a_client_are_limited_and_others_are_answered(primary: Primary, web: Client) -> None:
    async with contextlib.AsyncExitStack() as stack:
        readers = await connected(server.MAX_CONNECTIONS_PER_ADDRESS + 5, stack)
        for reader in readers[:5]:
            await ended(reader)
        assert await web.told() == "web1"
        assert not any(reader.at_eof() for reader in readers[5:])


async def test_the_oldest_of_too_many_connections_is_closed(
    primary: Primary, web: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 10)
    async with contextlib.AsyncExitStack() as stack:
        readers = await connected(10, stack)
        assert await web.told() == "web1"
        await ended(readers[0])


@pytest.mark.parametrize(
    ("limit", "said"), [("REQUEST_SECONDS", b"GET / HTTP/1.1\r\nHost:"), ("CONNECTION_SECONDS", b"GET / ")]
)
async def test_the_lifetime_of_a_connection_is_limited(
    limit: str, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, limit, 0.3)
    async with Primary().running():
        reader, writer = await asyncio.open_connection(ADDRESS, 80)
        writer.write(said)
        await ended(reader)
        writer.close()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5000 + b"\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: a\r\n" % each for each in range(200)) + b"\r\n", b"400"),
        (b"\0\1\2\r\n\r\n", b"400"),
        (b"PUT /latest/api/token HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n" + b"a" * 1000, b"404"),
    ],
    ids=["line", "header", "headers", "no HTTP", "body"],
)
async def test_requests_that_are_too_large_or_invalid_are_refused_at_once(
    primary: Primary, said: bytes, status: bytes
) -> None:
    reader, writer = await asyncio.open_connection(ADDRESS, 80)
    writer.write(said)
    async with asyncio.timeout(server.REQUEST_SECONDS / 2):
        first = await reader.readline()
        rest = await reader.read()
    writer.close()
    assert first.split()[1] == status and b"Traceback" not in rest and len(rest) < 1000


# cloud-init


async def booted(guest: Host, folder: Path, **config: Any) -> Outcome:
    needs_cloud_init()
    before = seen_here()
    outcome = await asyncio.to_thread(boot, guest, folder, **config)
    assert seen_here() == before, "this machine was changed"
    return outcome


def seen_here() -> list[str]:
    """The state of this machine that cloud-init could change."""
    return [os.uname().nodename, *(str(path) for path in CHANGED if path.exists()), *os.listdir("/etc/cloud")]


def applied(outcome: Outcome, name: str) -> None:
    """Assert that a VM has applied its metadata."""
    assert outcome.text("hostname").strip() == name
    assert outcome.text("from-userdata") == f"{name} says 100 % & +"
    assert sorted(filter(None, outcome.text("authorized_keys").splitlines())) == sorted(KEYS)
    instance = json.loads(outcome.text("instance-data.json"))["v1"]
    assert instance["instance_id"] == str(uuid_of(name)) and instance["local_hostname"] == name
    assert "Traceback" not in outcome.log


async def test_cloud_init_applies_metadata_from_ec2(primary: Primary, web: Client, tmp_path: Path) -> None:
    here = {"metadata_urls": [f"http://{ADDRESS}"], "strict_id": False}
    outcome = await booted(web, tmp_path / "boot", datasource_list=["Ec2"], datasource={"Ec2": here})
    applied(outcome, "web1")
    instance = json.loads(outcome.text("instance-data.json"))["v1"]
    assert (instance["platform"], instance["availability_zone"]) == ("ec2", "pvc")
    assert f"http://{ADDRESS}/2021-03-23/meta-data/public-keys/1/openssh-key" in outcome.log


async def test_cloud_init_applies_metadata_from_nocloud(primary: Primary, web: Client, tmp_path: Path) -> None:
    """The image has no configuration: the serial number of the VM contains the address."""
    outcome = await booted(web, tmp_path / "boot", serial=SERIAL, datasource_list=["NoCloud", "Ec2", "None"])
    applied(outcome, "web1")
    assert "DataSourceNoCloudNet" in outcome.log and "/2009-04-04/" not in outcome.log


async def test_cloud_init_of_a_client_that_is_no_vm_gets_nothing(primary: Primary, tmp_path: Path) -> None:
    with Client("foreign", NOBODY, "10.20.0.60") as foreign:
        here = {"metadata_urls": [f"http://{ADDRESS}"], "strict_id": False, "max_wait": 1, "timeout": 1}
        outcome = await booted(foreign, tmp_path / "boot", datasource_list=["Ec2", "None"], datasource={"Ec2": here})
        assert outcome.text("hostname").strip() == "untouched" and not outcome.text("from-userdata")
