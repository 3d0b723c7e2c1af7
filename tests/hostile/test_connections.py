"""Clients that are slow, many, idle or gone: others are answered all the same."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlencode

import pytest

from pvcd.clock import SystemClock
from pvcd.daemon import api as daemons
from pvcd.daemon.components import make_context
from pvcd.declare.context import Role
from pvcd.plugin.loading import load
from pvcd.plugin.registry import collect
from pvcd.settings import PluginsSection
from pvcd.store.memory import MemoryServer, MemoryTree
from pvcd.testing import minimal_settings
from tests.client import Client
from tests.contract.conftest import ZooKeeperServer
from tests.hostile.conftest import HANG, latencies
from tests.hostile.raw import chunked, connect, head, port_of, read, reset
from tests.integration.cluster import Cluster
from tests.servers import Api, definition, many_nodes

USUAL_FILES = 1024
"""The usual limit of open files."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, zookeeper: ZooKeeperServer) -> Iterator[Api]:
    """An API server that may open as many files as is usual."""
    folder = tmp_path_factory.mktemp("connections")
    with many_nodes(folder, zookeeper) as cluster:
        server = Api(folder / "api", zookeeper.hosts, zookeeper={"chroot": "/connections"})
        cluster.daemons.append(server)
        server.start("prlimit", f"--nofile={USUAL_FILES}:20000")
        yield server


@contextmanager
def dribble(pieces: Iterator[tuple[socket.socket, bytes]]) -> Iterator[list[int]]:
    """Send a piece every few milliseconds, until the block ends; the number of those that could not be sent."""
    end, failed = threading.Event(), [0]

    def send() -> None:
        for connection, piece in pieces:
            if end.wait(0.002):
                return
            try:
                connection.sendall(piece)
            except OSError:
                failed[0] += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield failed
    finally:
        end.set()
        thread.join()


def slowly(connections: list[socket.socket], text: bytes) -> Iterator[tuple[socket.socket, bytes]]:
    """Byte by byte, in turns; the last one never comes."""
    for offset in range(len(text) - 1):
        for connection in connections:
            yield connection, text[offset : offset + 1]


def others_are_answered(api: Client, path: str = "/node") -> None:
    waited = sorted(itertools.islice(latencies(api, path), 30))
    assert waited[len(waited) // 2] < 1 and waited[-1] < HANG, waited


SLOW = {
    "first line": b"GET /api/v1/vm?limit=" + b"a" * 4000,
    "headers": head("GET", "/api/v1/vm", *(f"X-{n}: {'a' * 40}" for n in range(90))),
    "body": head("POST", "/api/v1/vm", "Content-Length: 9999", "Content-Type: application/xml") + b"<" * 9000,
    "chunks": head("POST", "/api/v1/vm", "Transfer-Encoding: chunked") + b"1\r\na\r\n" * 2000,
    "nothing to read it": head("POST", "/nowhere", "Content-Length: 9999") + b"a" * 9000,
}


@pytest.mark.parametrize("part", SLOW)
def test_others_are_answered_while_50_clients_send_slowly(api: Api, part: str) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(api.port)) for _ in range(50)]
        text = SLOW[part]
        whole = text.find(b"\r\n\r\n") + 4
        if part not in ("first line", "headers"):
            for connection in connections:
                connection.sendall(text[:whole])
            text = text[whole:]
        with dribble(slowly(connections, text)):
            others_are_answered(api)
    others_are_answered(api)


def test_1000_idle_connections_do_not_block_other_clients(api: Api) -> None:
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connect(api.port))
        others_are_answered(api)
        with ExitStack() as more:
            for number in range(100):
                connection = more.enter_context(connect(api.port))
                connection.sendall(head("GET", "/api/v1/node", close=False))
                assert connection.recv(12) == b"HTTP/1.1 200", number
            others_are_answered(api)
    others_are_answered(api)


def test_clients_that_do_not_read_their_replies_do_not_block_others(victim: Cluster) -> None:
    port = port_of(victim.api)
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connect(port))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            try:
                while True:
                    connection.sendall(head("GET", "/api/v1/vm/web1", close=False) * 50)
            except BlockingIOError:
                pass
        others_are_answered(victim, "/vm/web1")


def test_pipelined_requests_are_answered_in_order(victim: Cluster) -> None:
    paths = [f"/api/v1/vm/web{number}" for number in range(100)]
    with connect(port_of(victim.api)) as connection:
        connection.sendall(b"".join(head("GET", path, close=path == paths[-1]) for path in paths))
        body = read(connection).body
    named = [body.find(f"'web{number}'".encode()) for number in range(100) if number != 1]
    assert -1 not in named and named == sorted(named)


def test_an_incomplete_request_writes_nothing(victim: Cluster) -> None:
    """A definition, of which every part could have come; the client hangs up in order or without a farewell."""
    body = urlencode({"xml": definition("web2")}).encode()
    kind = "Content-Type: application/x-www-form-urlencoded"
    request = head("POST", "/api/v1/vm", kind, f"Content-Length: {len(body)}", close=False) + body
    chunk = head("POST", "/api/v1/vm", kind, "Transfer-Encoding: chunked") + chunked([body])
    offsets = random.Random(1)
    for whole, end in itertools.product((request, chunk), (reset, socket.socket.close)):
        for _ in range(60):
            connection = connect(port_of(victim.api))
            connection.sendall(whole[: offsets.randrange(len(whole) - 3)])
            end(connection)
    assert [vm["name"] for vm in victim.get("/vm")] == ["web1"]


def test_a_write_is_complete_although_its_client_hangs_up(cluster: Cluster) -> None:
    body = urlencode({"xml": definition("web2")}).encode()
    kind = "Content-Type: application/x-www-form-urlencoded"
    for _ in range(20):
        connection = connect(port_of(cluster.api))
        connection.sendall(head("POST", "/api/v1/vm", kind, f"Content-Length: {len(body)}", close=False) + body)
        reset(connection)
    cluster.until(lambda: [vm["name"] for vm in cluster.get("/vm")] in (["web2"], []))
    status, said = cluster.ask("POST", "/vm", xml=definition("web2"))
    assert status == 200 or said["code"] == "vm-exists"
    assert cluster.vm("web2")["name"] == "web2"


@pytest.fixture
async def patient(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """The port of an API server in this process, whose patience ends soon."""
    monkeypatch.setattr(daemons, "IDLE_SECONDS", 0.5)
    registry = collect(load(PluginsSection()))
    settings = minimal_settings(registry)
    settings = settings.model_copy(update={"api": settings.api.model_copy(update={"listen_port": 0})})
    context = make_context(Role.API, settings, registry, MemoryTree(MemoryServer()), SystemClock())
    async with daemons.api(context) as runner:
        yield runner.addresses[0][1]


@pytest.mark.parametrize("part", ["nothing", "first line", "headers", "second request"])
async def test_a_connection_without_a_complete_request_is_closed(patient: int, part: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", patient)

    async def dribble_on() -> None:
        if part == "second request":
            writer.write(head("GET", "/api/v1", close=False))
        for byte in b"" if part == "nothing" else SLOW.get(part, SLOW["headers"]):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    dribbling = asyncio.ensure_future(dribble_on())
    try:
        async with asyncio.timeout(HANG):
            received: Any = await reader.read()
    except ConnectionResetError:
        received = b""
    finally:
        dribbling.cancel()
        await asyncio.gather(dribbling, return_exceptions=True)
        writer.close()
    assert received.startswith(b"HTTP/1.1 209") == (part == "second request")
