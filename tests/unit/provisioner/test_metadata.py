"""The metadata API: clients are identified by the kernel and the records, never by what they send."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from pvcd import Context, Create, Delete, Failed, Put, Record
from pvcd.clock import settle
from pvcd.testing import SimulatedCluster
from pvcd_plugins.provisioner.components import METADATA
from pvcd_plugins.provisioner.metadata import Arrival, answers, ssh_keys_of
from pvcd_plugins.provisioner.metadata.answers import Answers
from pvcd_plugins.provisioner.metadata.fake import FakeMetadata
from pvcd_plugins.provisioner.metadata.tokens import Tokens
from pvcd_plugins.provisioner.records import GuestMetadata
from pvcd_plugins.vm.records import VM, VMReport
from tests.metadata_api import BRIDGE, DB, FOR_ALL, KEYS, NOBODY, WEB, lease, network, part, reserved, uuid_of, vm

TOKEN, TTL = "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds"
HERE = Arrival(BRIDGE, IPv4Address("10.20.0.50"), WEB)
THERE = Arrival(BRIDGE, IPv4Address("10.20.0.51"), DB)


class Api:
    """The answers over records in memory, for clients at an arrival that a test sets."""

    def __init__(self, **settings: Any) -> None:
        self.cluster = SimulatedCluster([], [part()], without=["provisioner"], metadata=settings)
        self.arrival: Arrival | None = HERE
        self.keys: tuple[str, ...] = KEYS
        self.fails: Exception | None = None
        self.rendered = 0
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def context(self) -> Context:
        return self.cluster.api

    async def open(self) -> None:
        self.answers = Answers(self.context, self.describe, lambda request: self.arrival)
        await self.create(network(), network(201, "10.21.0"), vm("web1", WEB), vm("db1", DB))

    async def describe(self, context: Context, vm: VM) -> GuestMetadata:
        self.rendered += 1
        await self.gate.wait()
        if self.fails:
            raise self.fails
        return GuestMetadata(uuid=vm.uuid, userdata=FOR_ALL.format(name=vm.name), ssh_keys=self.keys)

    async def create(self, *records: Record) -> None:
        await self.context.store.write(*map(Create, records))

    async def ask(self, path: str, method: str = "GET", arrival: Arrival | None = HERE, **headers: str) -> web.Response:
        self.arrival = arrival
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.answers.answer(make_mocked_request(method, path, sent))

    async def get(self, path: str, arrival: Arrival | None = HERE, **headers: str) -> str:
        reply = await self.ask(path, arrival=arrival, **headers)
        assert (reply.status, reply.content_type) == (200, "text/plain"), path
        return str(reply.text)

    async def status(self, path: str, arrival: Arrival | None = HERE, **headers: str) -> int:
        return (await self.ask(path, arrival=arrival, **headers)).status

    async def token(self, seconds: str = "60", arrival: Arrival = HERE) -> str:
        reply = await self.ask("/latest/api/token", "PUT", arrival, **{TTL: seconds})
        assert reply.status == 200 and reply.headers[TTL] == seconds
        return str(reply.text)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api()
    async with made.cluster:
        await made.open()
        yield made
        made.gate.set()
        await made.answers.close()


@pytest.fixture
async def strict() -> AsyncIterator[Api]:
    made = Api(require_token=True)
    async with made.cluster:
        await made.open()
        yield made
        await made.answers.close()


# Content


async def crawl(api: Api, path: str) -> dict[str, Any]:
    """Return everything below a directory, as cloud-init reads it."""
    found: dict[str, Any] = {}
    for line in (await api.get(path)).split("\n"):
        number, equals, name = line.partition("=")
        if equals:
            found[name] = await api.get(f"{path}{number}/openssh-key")
        elif line.endswith("/"):
            found[line[:-1]] = await crawl(api, path + line)
        else:
            found[line] = await api.get(path + line)
    return found


@pytest.mark.parametrize("version", ["2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "2027-01-01", "latest"])
async def test_every_listed_entry_can_be_read(api: Api, version: str) -> None:
    assert await crawl(api, f"/{version}/meta-data/") == {
        "hostname": "web1.net200.example",
        "instance-id": str(uuid_of("web1")),
        "local-hostname": "web1",
        "local-ipv4": "10.20.0.50",
        "mac": WEB,
        "name": "web1",
        "placement": {"availability-zone": "pvc"},
        "profile": "small",
        "public-keys": {"key-0": KEYS[0], "key-1": KEYS[1]},
    }
    assert await api.get(f"/{version}/user-data") == FOR_ALL.format(name="web1")
    assert await api.get(f"/{version}") == await api.get(f"/{version}/") == "meta-data/\nuser-data"


async def test_without_keys_there_is_no_public_keys_directory(api: Api) -> None:
    api.keys = ()
    assert "public-keys" not in await crawl(api, "/latest/meta-data/")
    assert await api.status("/latest/meta-data/public-keys/") == 404


def test_each_line_of_the_argument_is_a_key() -> None:
    assert ssh_keys_of({"ssh_key": "ssh-rsa AAAA= me@pvc\n\n  ssh-ed25519 BBBB \r\n"}) == (
        "ssh-rsa AAAA= me@pvc",
        "ssh-ed25519 BBBB",
    )
    assert ssh_keys_of({"ssh_key": ""}) == ssh_keys_of({}) == ()


async def test_nocloud_gets_the_same_metadata(api: Api) -> None:
    said = yaml.safe_load(await api.get("/nocloud/meta-data"))
    assert said == {"instance-id": str(uuid_of("web1")), "local-hostname": "web1", "public-keys": list(KEYS)}
    assert await api.get("/nocloud/user-data") == FOR_ALL.format(name="web1")


async def test_optional_nocloud_files_are_empty(api: Api) -> None:
    assert await api.get("/nocloud/vendor-data") == await api.get("/nocloud/network-config") == ""


async def test_the_root_lists_the_versions(api: Api) -> None:
    reply = await api.ask("/")
    assert reply.status == 209 and reply.content_type == "application/json"
    assert "2009-04-04" in str(reply.text) and "latest" in str(reply.text)


@pytest.mark.parametrize(
    "path",
    [
        "/latest/dynamic/instance-identity",
        "/latest/meta-data/instance-id/more",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/meta-data/../meta-data/name",
        "/latest/meta-data/public-keys/2/openssh-key",
        "/latest/meta-data/public-keys/0=key-0",
        "/latestmeta-data/name",
        "/nowhere",
        "/nocloud/%00",
        "/nocloud/vendor-data/x",
    ],
)
async def test_other_paths_are_not_found(api: Api, path: str) -> None:
    assert await api.status(path) == 404


async def test_an_invalid_host_name_is_made_valid(api: Api) -> None:
    await api.create(vm("a_b+c", NOBODY))
    arrival = Arrival(BRIDGE, IPv4Address("10.20.0.60"), NOBODY)
    assert await api.get("/latest/meta-data/local-hostname", arrival) == "a-b-c"
    assert await api.get("/latest/meta-data/name", arrival) == "a_b+c"


async def test_a_vm_without_a_profile_gets_the_rest(api: Api) -> None:
    await api.create(vm("bare", NOBODY, profile=None))
    arrival = Arrival(BRIDGE, IPv4Address("10.20.0.60"), NOBODY)
    assert await api.get("/latest/meta-data/profile", arrival) == ""
    assert await api.get("/latest/meta-data/instance-id", arrival) == str(uuid_of("bare"))


# Callers


async def test_each_vm_gets_its_own_metadata(api: Api) -> None:
    assert await api.get("/latest/meta-data/name", THERE) == "db1"
    assert "db1" in await api.get("/latest/user-data", THERE)


@pytest.mark.parametrize(
    "arrival",
    [
        None,
        Arrival("lo", IPv4Address("127.0.0.1"), "00:00:00:00:00:00"),
        Arrival("eth0", HERE.address, WEB),
        Arrival("vmbr201", HERE.address, WEB),
        Arrival("vmbr999", HERE.address, WEB),
        Arrival(BRIDGE, IPv4Address("10.21.0.50"), WEB),
        Arrival("vmbr201", IPv4Address("10.21.0.50"), WEB),
        Arrival(BRIDGE, HERE.address, NOBODY),
    ],
    ids=[
        "no neighbour", "this node", "no bridge", "another network's bridge", "no network's bridge",
        "another network's address", "another network", "a MAC of no VM",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/latest/meta-data/instance-id", "/nocloud/user-data", "/nowhere"])
async def test_unidentified_clients_get_nothing(api: Api, arrival: Arrival | None, path: str) -> None:
    reply = await api.ask(path, arrival=arrival)
    assert (reply.status, reply.content_type, reply.text) == (404, "text/plain", "No VM is known at this address.\n")
    assert api.rendered == 0


async def test_headers_of_a_client_are_ignored(api: Api) -> None:
    said = {
        "X_Forwarded_For": str(THERE.address), "X_Real_Ip": str(THERE.address), "Forwarded": f"for={THERE.address}",
        "Host": str(THERE.address), "X_Instance_Id": str(uuid_of("db1")),
    }  # fmt: skip
    assert await api.get("/latest/meta-data/name", **said) == "web1"
    assert await api.status("/latest/meta-data/name", Arrival(BRIDGE, HERE.address, NOBODY), **said) == 404


async def test_a_mac_of_two_vms_identifies_neither(api: Api) -> None:
    await api.create(vm("twin", WEB))
    assert await api.status("/latest/user-data") == 404


async def test_a_mac_of_two_vms_identifies_the_one_that_runs(api: Api) -> None:
    await api.create(vm("twin", WEB), VMReport(uuid=uuid_of("web1"), node="hv1", running=True))
    assert await api.get("/latest/meta-data/name") == "web1"


async def test_a_mac_identifies_a_vm_in_its_own_network_only(api: Api) -> None:
    await api.create(vm("twin", WEB, "vmbr201"))
    assert await api.get("/latest/meta-data/name") == "web1"
    assert await api.get("/latest/meta-data/name", Arrival("vmbr201", IPv4Address("10.21.0.50"), WEB)) == "twin"


@pytest.mark.parametrize("given", [lease, reserved])
async def test_an_address_leased_to_another_vm_identifies_nothing(api: Api, given: Any) -> None:
    await api.create(given(DB, "10.20.0.50"))
    assert await api.status("/latest/user-data") == 404
    assert await api.get("/latest/meta-data/name", THERE) == "db1"


@pytest.mark.parametrize("given", [lease, reserved])
async def test_a_vm_at_its_leased_address_is_identified(api: Api, given: Any) -> None:
    await api.create(given(WEB, "10.20.0.50"))
    assert await api.get("/latest/meta-data/name") == "web1"


async def test_an_expired_lease_or_one_of_no_vm_is_ignored(api: Api) -> None:
    await api.create(lease(DB, "10.20.0.50", expires=api.context.clock.time()), lease(NOBODY, "10.20.0.51"))
    assert await api.get("/latest/meta-data/name") == "web1"
    assert await api.get("/latest/meta-data/name", THERE) == "db1"


async def test_a_removed_vm_gets_no_metadata(api: Api) -> None:
    assert await api.status("/latest/user-data") == 200
    record = api.context.store.get(VM, uuid_of("web1"))
    assert record
    await api.context.store.write(Delete(record))
    assert await api.status("/latest/user-data") == 404


# Tokens


async def test_a_token_is_valid_until_it_expires(api: Api) -> None:
    token = await api.token("60")
    assert await api.get("/latest/meta-data/name", **{TOKEN: token}) == "web1"
    await api.cluster.advance(59)
    assert await api.get("/latest/meta-data/name", **{TOKEN: token}) == "web1"
    await api.cluster.advance(2)
    assert await api.status("/latest/meta-data/name", **{TOKEN: token}) == 401


async def test_a_token_is_invalid_for_another_client(api: Api) -> None:
    token = await api.token("60")
    assert await api.status("/latest/meta-data/name", THERE, **{TOKEN: token}) == 401
    moved = Arrival(BRIDGE, IPv4Address("10.20.0.52"), WEB)
    assert await api.status("/latest/meta-data/name", moved, **{TOKEN: token}) == 401


async def test_a_forged_token_is_refused(api: Api) -> None:
    token = await api.token("60")
    end, _, signature = token.partition("-")
    forged = [
        "", "x", "-", f"{end}-", f"{int(end) + 1}-{signature}", f"{end}-{signature[:-1]}", token + "0", token.upper(),
        f"{'9' * 4000}-{signature}", f"²-{signature}", f"0{token}",
    ]  # fmt: skip
    for each in forged:
        assert await api.status("/latest/meta-data/name", **{TOKEN: each}) == 401, each
    assert not Tokens(api.context.clock).is_valid(f"{end}-\udcff", "anybody"), "bytes that are no text"


@pytest.mark.parametrize("seconds", ["", "0", "-1", "21601", "1.5", "9" * 5000, "²", "a"])
async def test_the_ttl_of_a_token_must_be_valid(api: Api, seconds: str) -> None:
    assert (await api.ask("/latest/api/token", "PUT", **{TTL: seconds})).status == 400


@pytest.mark.parametrize("seconds", ["1", "21600"])
async def test_a_token_may_last_six_hours(api: Api, seconds: str) -> None:
    assert await api.token(seconds)


async def test_an_unidentified_client_gets_no_token(api: Api) -> None:
    arrival = Arrival(BRIDGE, HERE.address, NOBODY)
    assert (await api.ask("/latest/api/token", "PUT", arrival, **{TTL: "60"})).status == 404


async def test_requests_without_a_token_are_refused_if_tokens_are_required(strict: Api) -> None:
    for path in ("/", "/latest/meta-data/name", "/nocloud/user-data", "/nowhere"):
        assert await strict.status(path) == 401
    assert await strict.get("/latest/meta-data/name", **{TOKEN: await strict.token()}) == "web1"


# Errors


async def test_only_reading_is_allowed(api: Api) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        reply = await api.ask("/latest/meta-data/name", method)
        assert reply.status == 405 and reply.headers["Allow"] == "GET, HEAD"
    assert (await api.ask("/latest/meta-data/name", "HEAD")).status == 200


@pytest.mark.parametrize(
    ("error", "status"), [(Failed("The secret is 42."), 503), (ValueError("The secret is 42."), 500)]
)
async def test_an_error_is_logged_and_not_shown_to_the_guest(
    api: Api, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    api.fails = error
    with caplog.at_level(logging.WARNING):
        reply = await api.ask("/latest/meta-data/instance-id")
    assert reply.status == status and "42" not in str(reply.text)
    assert "The secret is 42." in caplog.text


async def test_a_reply_does_not_reveal_the_server(api: Api) -> None:
    assert (await api.ask("/latest/user-data")).headers["Server"] == "pvcd"


async def test_a_description_that_takes_too_long_fails(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "DESCRIBE_SECONDS", 0.01)
    api.gate.clear()
    assert await api.status("/latest/user-data") == 503


async def test_metadata_is_described_once_for_concurrent_requests(api: Api) -> None:
    api.gate.clear()
    asked = [asyncio.ensure_future(api.status("/latest/user-data")) for _ in range(20)]
    await settle()
    api.gate.set()
    assert set(await asyncio.gather(*asked)) == {200}
    await crawl(api, "/latest/meta-data/")
    assert api.rendered == 1
    await api.cluster.advance(6)
    await api.status("/latest/user-data")
    assert api.rendered == 2


async def test_a_changed_vm_gets_its_new_metadata(api: Api) -> None:
    await api.get("/latest/user-data")
    record = api.context.store.get(VM, uuid_of("web1"))
    assert record
    await api.context.store.write(Put(record.changed(name="web2", profile="large")))
    assert "web2" in await api.get("/latest/user-data")
    assert await api.get("/latest/meta-data/profile") == "large"


# The address


async def test_metadata_of_a_vm_that_was_removed_without_a_primary_is_removed_by_the_next() -> None:
    cluster = SimulatedCluster([], [part()], without=["provisioner"])
    async with cluster:
        await cluster.api.store.write(Create(vm("web1", WEB)))
        await cluster.api.store.write(*(Create(GuestMetadata(uuid=uuid_of(name))) for name in ("web1", "db1")))
        await cluster.start_agent("hv1")
        await cluster.advance(5)
        assert [each.uuid for each in cluster.api.store.all(GuestMetadata)] == [uuid_of("web1")]


async def test_only_the_primary_holds_the_address() -> None:
    cluster = SimulatedCluster(["hv1", "hv2"], [part()], without=["provisioner"])
    async with cluster:
        await cluster.advance(30)
        fake = cluster.agents["hv1"][METADATA]
        assert isinstance(fake, FakeMetadata) and fake.held
        with pytest.raises(LookupError):
            cluster.agents["hv2"][METADATA]
        await cluster.kill_agent("hv1")
        await cluster.advance(30)
        assert not fake.held
        taken = cluster.agents["hv2"][METADATA]
        assert isinstance(taken, FakeMetadata) and taken.held


async def test_the_address_is_not_held_if_metadata_is_disabled() -> None:
    cluster = SimulatedCluster(["hv1"], [part()], without=["provisioner"], metadata={"enabled": False})
    async with cluster:
        await cluster.advance(30)
        fake = cluster.agents["hv1"][METADATA]
        assert isinstance(fake, FakeMetadata) and not fake.held
