"""Two API servers on one cluster: what is written on one is read on the other, and either may go away."""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.contract.conftest import ZooKeeperServer
from tests.servers import Api, definition, many_nodes

SIGHT = 2.0
"""Seconds within which the other server knows; a few milliseconds where the machine has nothing else to do."""
USERS = 6


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, zookeeper: ZooKeeperServer) -> Iterator[tuple[Api, Api]]:
    with many_nodes(tmp_path_factory.mktemp("two"), zookeeper) as cluster:
        one, two = cluster.api(), cluster.api()
        cluster.nodes(one, "hv1", "hv2")
        yield one, two


@pytest.fixture
def servers(both: tuple[Api, Api]) -> Iterator[tuple[Api, Api]]:
    """Both, without VMs before and after, and without a traceback in their logs."""
    yield both
    one, two = both
    for vm in one.get("/vm"):
        one.ask("DELETE", f"/vm/{vm['name']}")
    two.until(lambda: two.get("/vm") == [], SIGHT)
    for server in both:
        server.has_not_stumbled()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_write_on_one_is_read_on_the_other(servers: tuple[Api, Api], order: tuple[int, int]) -> None:
    here, there = (servers[number] for number in order)
    here.post("/vm", xml=definition("web1"), node="hv1")
    there.until(lambda: [vm["name"] for vm in there.get("/vm")] == ["web1"], SIGHT)
    here.post("/vm/web1", selector="load", autostart="")
    there.until(lambda: there.vm("web1")["node_selector"] == "load" and there.vm("web1")["node_autostart"], SIGHT)
    here.post("/vm/web1/state", state="start")
    there.until_state("web1", "start", True)
    here.post("/node/hv2/domain-state", **{"domain-state": "flush"})
    there.until(lambda: there.node("hv2")["domain_state"] == "flushed")
    there.post("/node/hv2/domain-state", **{"domain-state": "ready"})
    here.until(lambda: here.node("hv2")["domain_state"] == "ready")
    assert there.ask("DELETE", "/vm/web1")[0] == 200
    here.until(lambda: here.get("/vm") == [], SIGHT)


def test_both_servers_give_identical_replies(servers: tuple[Api, Api]) -> None:
    one, two = servers
    for number in range(5):
        servers[number % 2].post("/vm", xml=definition(f"web{number}"))

    def alike() -> bool:
        replies = [server.send("GET", "/vm") for server in (one, two)]
        return len({(reply.body, reply.headers["ETag"]) for reply in replies}) == 1

    one.until(lambda: len(one.get("/vm")) == 5 and alike(), SIGHT)


def test_concurrent_defines_of_a_name_on_both_servers_succeed_once(servers: tuple[Api, Api]) -> None:
    with ThreadPoolExecutor(20) as pool:
        asked = [(servers[number % 2], f"web{number % 4}") for number in range(40)]
        replies = list(pool.map(lambda each: each[0].ask("POST", "/vm", xml=definition(each[1])), asked))
    assert Counter(status for status, _ in replies) == {200: 4, 510: 36}
    assert {body["code"] for status, body in replies if status == 510} == {"vm-exists"}
    servers[0].until(lambda: all(len(server.get("/vm")) == 4 for server in servers), SIGHT)


def test_concurrent_changes_of_one_vm_on_both_servers_are_all_done(servers: tuple[Api, Api]) -> None:
    servers[0].post("/vm", xml=definition("web1"))
    servers[1].until(lambda: servers[1].get("/vm"), SIGHT)
    values = [{"selector": "load"}, {"autostart": ""}, {"limit": "hv1,hv2"}]

    def change(number: int) -> int:
        return servers[number % 2].ask("POST", "/vm/web1", **values[number % 3])[0]

    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(change, range(60))) == {200}
    for server in servers:
        server.until(lambda s=server: s.vm("web1")["node_limit"] == ["hv1", "hv2"], SIGHT)  # type: ignore[misc]
        vm = server.vm("web1")
        assert (vm["node_selector"], vm["node_autostart"]) == ("load", True)


# A rolling restart


class User(threading.Thread):
    """A client that sends requests to either server on persistent connections, and tries the other after a failure."""

    def __init__(self, number: int, servers: tuple[Api, Api], end: threading.Event) -> None:
        super().__init__(daemon=True)
        self._number, self._end = number, end
        self._connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=20) for server in servers]
        self.acknowledged: dict[str, str] = {}
        """The VMs that it defined, and the selector that it gave each last."""
        self.retried: Counter[str] = Counter()
        self.failed: list[str] = []

    def run(self) -> None:
        try:
            for count in itertools.count():
                if self._end.is_set() or self.failed:
                    return
                self._round(f"user{self._number}-{count}", count)
        finally:
            for connection in self._connections:
                connection.close()

    def _round(self, name: str, count: int) -> None:
        if self._ask(count, "POST", "/vm", xml=definition(name)):
            self.acknowledged[name] = "mem"
        for turn, selector in enumerate(("load", "vms")):
            if self._ask(count + turn, "POST", f"/vm/{name}", selector=selector):
                self.acknowledged[name] = selector
        self._ask(count, "GET", "/vm")
        self._ask(count, "GET", f"/node/hv{1 + count % 2}")

    def _ask(self, first: int, method: str, path: str, **values: str) -> bool:
        """Return whether one of the servers did it, after a few alternate attempts."""
        said = []
        for attempt in range(8):
            connection = self._connections[(first + attempt) % 2]
            try:
                status, body = self._send(connection, method, path, values)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                said.append(type(error).__name__)
                self.retried[said[-1]] += 1
                continue
            done = attempt > 0 and body.get("code") == "vm-exists"  # by the first one, whose answer was lost
            if status == 200 or done:
                return True
            said.append(f"{status} {body}")
            self.retried[str(body.get("code"))] += 1
            if body.get("code") == "vm-not-found":  # it was defined on the other one a moment ago
                time.sleep(0.05)
        self.failed.append(f"{method} {path}: {said}")
        return False

    @staticmethod
    def _send(connection: http.client.HTTPConnection, method: str, path: str, values: Any) -> tuple[int, Any]:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if values else {}
        connection.request(method, "/api/v1" + path, urlencode(values) or None, headers)
        reply = connection.getresponse()
        body = json.loads(reply.read())
        return reply.status, body if isinstance(body, dict) else {}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["in-order", "killed"])
def test_a_rolling_restart_under_load_loses_no_acknowledged_write_and_fails_no_retried_request(
    servers: tuple[Api, Api], how: signal.Signals
) -> None:
    end = threading.Event()
    users = [User(number, servers, end) for number in range(USERS)]
    for user in users:
        user.start()
    try:
        for server in servers:
            before = sum(len(user.acknowledged) for user in users)
            server.until(lambda b=before: sum(len(u.acknowledged) for u in users) >= b + USERS)  # type: ignore[misc]
            code = server.stop(how)
            assert code == (0 if how is signal.SIGTERM else -signal.SIGKILL)
            server.start()
    finally:
        end.set()
        for user in users:
            user.join(60)
    assert [failure for user in users for failure in user.failed] == []
    expected = {name: selector for user in users for name, selector in user.acknowledged.items()}
    assert len(expected) > 2 * USERS
    assert sum(user.retried.total() for user in users) > 0, "nobody noticed that a server was away"

    def missed(server: Api) -> set[tuple[str, str]]:
        return expected.items() - {(vm["name"], vm["node_selector"]) for vm in server.get("/vm")}

    for server in servers:
        server.until(lambda s=server: not missed(s), SIGHT)  # type: ignore[misc]
