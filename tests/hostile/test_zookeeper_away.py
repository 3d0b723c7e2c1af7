"""ZooKeeper stands still or dies: reads go on, marked stale; writes fail soon; and afterwards all goes on by itself."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from tests.client import Client
from tests.contract.conftest import ZooKeeperServer
from tests.servers import Api, ManyNodes, definition, many_nodes, within, zookeeper_server

STALE = "X-PVC-Stale-Since"
pytestmark = pytest.mark.alone
READS = ("/vm", "/vm/web1", "/vm/web1/state", "/vm/web1/node", "/vm/web1/dump", "/node", "/node/hv1/daemon-state")
WRITES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("POST", "/vm", {"xml": definition("web2")}),
    ("POST", "/vm/web1", {"selector": "load"}),
    ("PUT", "/vm/web1", {}),
    ("POST", "/vm/web1/state", {"state": "start"}),
    ("POST", "/vm/web1/node", {"action": "migrate"}),
    ("DELETE", "/vm/web1", {}),
    ("POST", "/node/hv1/domain-state", {"domain-state": "flush"}),
    ("POST", "/node/hv2/coordinator-state", {"coordinator-state": "primary"}),
)
WRITE_SECONDS = 2.0
READ_SECONDS = 1.0
BACK_SECONDS = 15.0


@dataclass
class Outage:
    """How ZooKeeper is taken down and brought back."""

    begin: Callable[[ZooKeeperServer], None]
    end: Callable[[ZooKeeperServer], None]


STANDSTILL = Outage(ZooKeeperServer.pause, ZooKeeperServer.resume)
DEATH = Outage(lambda server: server.stop(signal.SIGKILL), ZooKeeperServer.start)
outages = pytest.mark.parametrize("outage", [STANDSTILL, DEATH], ids=["stands-still", "dies"])


@pytest.fixture(scope="module")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    with zookeeper_server(tmp_path_factory.mktemp("zookeeper") / "data") as server:
        yield server


@pytest.fixture
def many(tmp_path: Path, zookeeper: ZooKeeperServer) -> Iterator[ManyNodes]:
    """Two nodes and an API with a stopped VM, and with authentication, since sessions are kept in ZooKeeper."""
    with many_nodes(tmp_path, zookeeper, token=str(uuid4())) as cluster:
        api = cluster.api()
        cluster.nodes(api, "hv1", "hv2")
        api.post("/vm", xml=definition("web1"), node="hv1")
        api.until(lambda: api.vm("web1")["updated"] and api.node("hv1")["coordinator_state"] == "primary")
        yield cluster


@pytest.fixture
def api(many: ManyNodes) -> Api:
    return next(daemon for daemon in many.daemons if isinstance(daemon, Api))


def is_stale(api: Client) -> bool:
    return STALE in api.send("GET", "/vm").headers


@outages
def test_reads_continue_and_say_since_when_they_may_be_stale(
    api: Api, zookeeper: ZooKeeperServer, outage: Outage
) -> None:
    before = {path: api.send("GET", path).body for path in READS}
    assert not is_stale(api)
    begun = datetime.now(UTC)
    outage.begin(zookeeper)
    try:
        api.until(lambda: is_stale(api), 6)
        since = set()
        for path in READS:
            with within(READ_SECONDS):
                reply = api.send("GET", path)
            since.add(reply.headers[STALE])
            assert (reply.status, reply.body) == (200, before[path])
        assert len(since) == 1
        assert begun <= datetime.fromisoformat(since.pop()) <= datetime.now(UTC)
    finally:
        outage.end(zookeeper)
    api.until(lambda: not is_stale(api), BACK_SECONDS)


@outages
def test_reads_do_not_wait_before_the_outage_is_noticed(api: Api, zookeeper: ZooKeeperServer, outage: Outage) -> None:
    outage.begin(zookeeper)
    try:
        for path in READS:
            with within(READ_SECONDS):
                assert api.send("GET", path).status == 200
    finally:
        outage.end(zookeeper)


@outages
def test_writes_fail_within_two_seconds_and_say_why(api: Api, zookeeper: ZooKeeperServer, outage: Outage) -> None:
    xml = api.vm("web1")["xml"]
    outage.begin(zookeeper)
    try:
        for method, path, values in WRITES:
            with within(WRITE_SECONDS):
                reply = api.send(method, path, form=values or {"xml": xml} if method != "DELETE" else {})
            assert (reply.status, reply.code) == (510, "zookeeper-unavailable"), (path, reply.body)
            assert "ZooKeeper" in reply.json["message"]
        with within(WRITE_SECONDS):
            accept = {"Accept": "application/problem+json"}
            problem = api.send("POST", "/vm/web1", form={"selector": "vms"}, headers=accept)
        assert (problem.status, problem.code) == (503, "zookeeper-unavailable")
        assert STALE in problem.headers
    finally:
        outage.end(zookeeper)


def test_concurrent_writes_all_fail_within_two_seconds(api: Api, zookeeper: ZooKeeperServer) -> None:
    zookeeper.pause()
    try:
        with ThreadPoolExecutor(30) as pool, within(WRITE_SECONDS + 1):
            replies = list(pool.map(lambda n: api.refused("POST", "/vm", xml=definition(f"vm{n}")), range(30)))
        assert set(replies) == {"zookeeper-unavailable"}
    finally:
        zookeeper.resume()


@outages
def test_everything_continues_without_a_restart_when_zookeeper_is_back_sessions_included(
    many: ManyNodes, api: Api, zookeeper: ZooKeeperServer, outage: Outage
) -> None:
    processes = [daemon.pid for daemon in many.daemons]
    login = api.send("POST", "/auth/login", form={"token": api.headers["X-Api-Key"]})
    api.headers = {"Cookie": login.headers["Set-Cookie"].partition(";")[0]}
    outage.begin(zookeeper)
    try:
        api.until(lambda: is_stale(api), 6)
    finally:
        outage.end(zookeeper)
    api.until(lambda: not is_stale(api), BACK_SECONDS)
    api.until(lambda: api.ask("POST", "/vm", xml=definition("web2"), node="hv2")[0] == 200, BACK_SECONDS)
    for name in ("web1", "web2"):
        api.until(lambda n=name: api.ask("POST", f"/vm/{n}/state", state="start")[0] == 200)  # type: ignore[misc]
        api.until_state(name, "start", True)
    api.until(lambda: {node["daemon_state"] for node in api.get("/node")} == {"run"})
    assert [daemon.pid for daemon in many.daemons if daemon.process and daemon.process.poll() is None] == processes
    assert api.send("POST", "/auth/logout").status == 200
    api.until(lambda: api.send("GET", "/vm").status == 401)
