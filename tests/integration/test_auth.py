"""Authentication of two API servers on one ZooKeeper: sessions, tokens and certificates while they run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from http.cookies import Morsel
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import yaml

from pvcd.programs.runner import run
from tests.certificates import write_certificate
from tests.contract.conftest import ZooKeeperServer, free_ports, needs_zookeeper

TOKEN, OTHER_TOKEN = str(uuid4()), str(uuid4())
SECRET_KEY = uuid4().hex + uuid4().hex


@pytest.fixture(scope="module")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    needs_zookeeper()
    server = ZooKeeperServer(tmp_path_factory.mktemp("zookeeper"), free_ports(1)[0])
    server.start()
    yield server
    server.stop()


class Api:
    """A `pvcd api` process with its own settings file."""

    def __init__(self, folder: Path, hosts: str, chroot: str, **ssl_settings: Any) -> None:
        folder.mkdir()
        self.folder = folder
        self.port = free_ports(1)[0]
        self.scheme = "https" if ssl_settings else "http"
        self.settings: dict[str, Any] = {
            "debug": False,
            "coordinators": [hosts],
            "api": {
                "listen_address": "127.0.0.1",
                "listen_port": self.port,
                "authentication": {
                    "enabled": True,
                    "secret_key": SECRET_KEY,
                    "tokens": [{"token": TOKEN}, {"token": OTHER_TOKEN}],
                },
                "ssl": {"enabled": bool(ssl_settings)} | ssl_settings,
            },
            "zookeeper": {"chroot": chroot},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def write(self) -> None:
        (self.folder / "pvc-api.yaml").write_text(yaml.safe_dump({"pvc": self.settings}))

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process."""
        self.write()
        environment = {**os.environ, "PVC_CONFIG_FILE": str(self.folder / "pvc-api.yaml")}
        with (self.folder / "log").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pvcd", "api"], stdout=output, stderr=output, env=environment
            )
        return self.process

    async def start(self) -> None:
        """Start the process and wait until it serves."""
        lines = self.log.count("listening on")
        process = self.launch()
        await until(lambda: self.log.count("listening on") > lines or process.poll() is not None)
        assert process.poll() is None, self.log

    async def stop(self) -> None:
        """End the process in order."""
        process, self.process = self.process, None
        if process:
            process.terminate()
            assert await asyncio.to_thread(process.wait, 20) == 0

    @property
    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text() if file.exists() else ""

    async def hang_up(self, *says: str) -> None:
        """Let it read its settings again; it should log these."""
        assert self.process
        before = len(self.log)
        self.process.send_signal(signal.SIGHUP)
        await until(lambda: all(each in self.log[before:] for each in says))

    async def ask(
        self, method: str, path: str, cookie: str | None = None, key: str | None = None, **options: Any
    ) -> tuple[int, Any, Morsel[str] | None]:
        """The status, JSON and cookie of a reply."""
        headers = {"Cookie": f"PVC_SESSION={cookie}"} if cookie else {}
        headers |= {"X-Api-Key": key} if key else {}
        url = f"{self.scheme}://127.0.0.1:{self.port}/api/v1{path}"
        jar = aiohttp.DummyCookieJar()
        async with (
            aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(20)) as client,
            client.request(method, url, headers=headers, **options) as reply,
        ):
            return reply.status, await reply.json(), reply.cookies.get("PVC_SESSION")

    async def status(self, cookie: str | None = None, key: str | None = None) -> int:
        return (await self.ask("GET", "/node", cookie, key))[0]

    async def until_status(self, status: int, cookie: str, method: str = "GET", path: str = "/node") -> None:
        """Ask until this is the answer."""
        async with asyncio.timeout(20):
            while (await self.ask(method, path, cookie))[0] != status:  # noqa: ASYNC110 - the server is asked
                await asyncio.sleep(0.01)

    async def log_in(self, token: str = TOKEN) -> str:
        status, body, cookie = await self.ask("POST", "/auth/login", data={"token": token})
        assert (status, body, bool(cookie)) == (200, {"message": "Logged in"}, True)
        assert cookie is not None
        return cookie.value


async def until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a condition of other processes
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def stopped_at_the_end(*servers: Api) -> AsyncIterator[None]:
    """Servers of which no process is left, and which logged no unexpected error and no secret."""
    try:
        yield
        for server in servers:
            await server.stop()
    finally:
        for server in servers:
            if server.process:
                server.process.kill()
                server.process.wait()
    for server in servers:
        assert "Traceback" not in server.log
        assert not [secret for secret in (TOKEN, OTHER_TOKEN, SECRET_KEY) if secret in server.log]


@pytest.fixture
async def servers(tmp_path: Path, zookeeper: ZooKeeperServer) -> AsyncIterator[list[Api]]:
    """Two API servers on one cluster."""
    chroot = f"/{uuid4()}"
    servers = [Api(tmp_path / name, zookeeper.hosts, chroot) for name in ("one", "two")]
    async with stopped_at_the_end(*servers):
        for server in servers:
            await server.start()
        yield servers


async def test_a_copied_cookie_is_refused_everywhere_after_logout_and_restarts(servers: list[Api]) -> None:
    one, two = servers
    copied = await one.log_in()
    assert [await each.status(copied) for each in servers] == [200, 200]
    assert (await two.ask("POST", "/auth/logout", copied))[:2] == (200, {"message": "Logged out"})
    assert await two.status(copied) == 401
    await one.until_status(401, copied)
    for each in servers:
        await each.stop()
        await each.start()
    assert [await each.status(copied) for each in servers] == [401, 401]


async def test_a_session_is_valid_on_both_servers_at_once_and_after_restarts(servers: list[Api]) -> None:
    cookies = []
    for here, there in (servers, reversed(servers)):
        for _ in range(5):
            cookies.append(await here.log_in())
            assert await there.status(cookies[-1]) == 200
    for each in servers:
        await each.stop()
        await each.start()
    assert {await each.status(cookie) for cookie in cookies for each in servers} == {200}


async def test_the_example_of_the_documentation_works(servers: list[Api], tmp_path: Path) -> None:
    lines = (Path(__file__).parents[2] / "docs" / "authentication.md").read_text().splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("    curl ")]
    api = f"http://127.0.0.1:{servers[0].port}/"
    answers = []
    for command in commands:
        argv = [
            re.sub(r"^http://127\.0\.0\.1:7370/", api, re.sub(r"^token=.*", f"token={TOKEN}", each)) for each in command
        ]
        argv = [str(tmp_path / each) if each == "cookies" else each for each in argv]
        answers.append((await run([*argv, "--silent", "--fail"], timeout=20)).stdout)
    assert answers == [b'{"message":"Logged in"}', b"[]", b'{"message":"Logged out"}']
    assert TOKEN not in (tmp_path / "cookies").read_text()


async def test_sessions_survive_an_outage_of_zookeeper(servers: list[Api], zookeeper: ZooKeeperServer) -> None:
    one, two = servers
    cookie = await one.log_in()
    assert await two.status(cookie) == 200
    zookeeper.pause()
    try:
        assert [await each.status(cookie) for each in servers] == [200, 200]
        status, body, _ = await one.ask("POST", "/auth/logout", cookie)
        assert (status, body["code"]) == (510, "zookeeper-unavailable")
    finally:
        zookeeper.resume()
    assert await two.status(cookie) == 200
    await one.until_status(200, cookie, "POST", "/auth/logout")
    await two.until_status(401, cookie)


async def test_tokens_are_read_again_after_a_hangup_and_their_sessions_end(servers: list[Api]) -> None:
    one, two = servers
    removed, kept = await one.log_in(TOKEN), await one.log_in(OTHER_TOKEN)
    added = str(uuid4())
    one.settings["api"]["authentication"]["tokens"] = [{"token": OTHER_TOKEN}, {"token": added}]
    one.write()
    assert await one.status(key=added) == 401
    await one.hang_up("tokens reloaded")
    assert [await one.status(removed), await one.status(kept), await one.status(key=added)] == [401, 200, 200]
    assert [await one.status(key=TOKEN), await one.status(key=OTHER_TOKEN)] == [401, 200]
    assert await two.status(removed) == 200, "which has not been told"


async def test_a_wrong_settings_file_leaves_the_tokens_unchanged(servers: list[Api]) -> None:
    one = servers[0]
    cookie = await one.log_in()
    one.settings["api"]["authentication"] |= {"tokens": [], "secret_kye": "x"}
    one.write()
    await one.hang_up("tokens not reloaded: pvc.api.authentication.secret_kye: unknown setting")
    assert [await one.status(cookie), await one.status(key=TOKEN)] == [200, 200]
    one.settings["api"]["authentication"] = {"enabled": False}
    one.write()
    await one.hang_up("authentication and TLS are switched on or off by a restart only")
    assert [await one.status(cookie), await one.status(key=TOKEN), await one.status()] == [200, 200, 401]


async def test_a_short_secret_key_is_warned_of(tmp_path: Path, zookeeper: ZooKeeperServer) -> None:
    server = Api(tmp_path / "api", zookeeper.hosts, f"/{uuid4()}")
    server.settings["api"]["authentication"]["secret_key"] = "k" * 31
    async with stopped_at_the_end(server):
        await server.start()
        assert "pvc.api.authentication.secret_key should have at least 32 random characters" in server.log


# TLS


@pytest.fixture
async def secure(tmp_path: Path, zookeeper: ZooKeeperServer) -> AsyncIterator[Api]:
    """An API server with a certificate."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(cert, key, "first")
    server = Api(tmp_path / "api", zookeeper.hosts, f"/{uuid4()}", cert_file=str(cert), key_file=str(key))
    async with stopped_at_the_end(server):
        await server.start()
        yield server


def trusting(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "cert.pem")
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


async def shown(server: Api, context: ssl.SSLContext) -> tuple[str, str]:
    """The TLS version and the name in the certificate of a new connection."""
    _, writer = await asyncio.wait_for(
        asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname="127.0.0.1"), 10
    )
    connection = writer.get_extra_info("ssl_object")
    version, certificate = connection.version(), connection.getpeercert()
    writer.close()
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()
    return version, certificate["subject"][0][0][1]


async def test_tls_serves_modern_clients_and_refuses_old_ones(secure: Api, tmp_path: Path) -> None:
    assert await shown(secure, trusting(tmp_path)) == ("TLSv1.3", "first")
    context = trusting(tmp_path)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await shown(secure, context) == ("TLSv1.2", "first")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shown(secure, context)
    with pytest.raises(aiohttp.ClientError):
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://127.0.0.1:{secure.port}/api/v1"),
        ):
            pass


async def test_a_cookie_of_tls_is_sent_over_tls_only(secure: Api, tmp_path: Path) -> None:
    context = trusting(tmp_path)
    status, _, cookie = await secure.ask("POST", "/auth/login", data={"token": TOKEN}, ssl=context)
    assert cookie is not None
    assert (status, cookie["secure"], cookie["httponly"], cookie["samesite"]) == (200, True, True, "Strict")
    assert (await secure.ask("GET", "/node", cookie.value, ssl=context))[0] == 200


async def test_a_certificate_is_read_again_after_a_hangup_and_connections_stay(secure: Api, tmp_path: Path) -> None:
    streams = await asyncio.open_connection("127.0.0.1", secure.port, ssl=trusting(tmp_path))
    assert await root_over(*streams) == 209
    write_certificate(tmp_path / "cert.pem", tmp_path / "key.pem", "second")
    await secure.hang_up("certificate reloaded")
    assert (await shown(secure, trusting(tmp_path)))[1] == "second"
    assert await root_over(*streams) == 209
    streams[1].close()
    await streams[1].wait_closed()


async def root_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """The status of the API's root, asked for over a connection that stays open."""
    writer.write(b"GET /api/v1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    return int(head.split(b" ")[1])


async def test_a_bad_certificate_leaves_the_old_one_and_is_logged(secure: Api, tmp_path: Path) -> None:
    context = trusting(tmp_path)
    write_certificate(tmp_path / "cert.pem", tmp_path / "other-key.pem", "second")
    await secure.hang_up("tokens reloaded", "certificate not reloaded: pvc.api.ssl: ")
    assert (await shown(secure, context))[1] == "first"
    shutil.copy(tmp_path / "other-key.pem", tmp_path / "key.pem")
    await secure.hang_up("certificate reloaded")
    assert (await shown(secure, trusting(tmp_path)))[1] == "second"


async def test_a_certificate_is_renewed_even_if_the_settings_are_wrong(secure: Api, tmp_path: Path) -> None:
    write_certificate(tmp_path / "cert.pem", tmp_path / "key.pem", "second")
    secure.settings["debog"] = True
    secure.write()
    await secure.hang_up("tokens not reloaded: pvc.debog: ", "certificate reloaded")
    assert (await shown(secure, trusting(tmp_path)))[1] == "second"


async def test_an_unusable_certificate_stops_the_start(tmp_path: Path, zookeeper: ZooKeeperServer) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(cert, key, "first", passphrase="hunter2")
    server = Api(tmp_path / "api", zookeeper.hosts, f"/{uuid4()}", cert_file=str(cert), key_file=str(key))
    async with stopped_at_the_end(server):
        assert await asyncio.to_thread(server.launch().wait, 20) == 2
        server.process = None
        assert server.log.splitlines()[-1:] == [
            f"pvc.api.ssl: {cert} and {key} must be a certificate and its key, as PEM without a passphrase."
        ]
