"""Authentication behind a real server: who is let in, how sessions begin and end, and what other sites cannot do."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Annotated, Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.fernet import Fernet

from pvcd.clock import VirtualClock
from pvcd.daemon.api import ADMISSION, create_app
from pvcd.daemon.components import make_context
from pvcd.declare.context import Context, Role
from pvcd.http import logins, throttle
from pvcd.http.logins import Login
from pvcd.http.middleware import PROBLEM
from pvcd.http.parameters import Value
from pvcd.http.replies import Message
from pvcd.http.routes import Routes
from pvcd.plugin.hookspecs import hookimpl
from pvcd.plugin.loading import Plugin
from pvcd.plugin.registry import collect
from pvcd.store.memory import MemoryServer, MemoryTree
from pvcd.testing import minimal_settings

SECRET_KEY = "k" * 32
TOKEN, OTHER_TOKEN = "0a9e6d3e-3d0c-4a7a-9c35-5e2b6d1f8a11", "t\u00f6ken of the web page"
HOUR = 3600

routes = Routes("/api/v1/thing", tag="Things")


@routes.get()
async def show(context: Context) -> Message:
    """Show things."""
    return Message(message="shown")


@routes.post()
async def change(context: Context, size: Annotated[int, Value("Size")] = 0) -> Message:
    """Change things."""
    return Message(message="changed")


@routes.get("/asker")
async def show_asker(context: Context) -> Message:
    """Show who asks."""
    return Message(message=str(context.user))


@routes.put()
async def replace(context: Context) -> Message:
    """Replace things."""
    return Message(message="changed")


@routes.delete()
async def remove(context: Context) -> Message:
    """Remove things."""
    return Message(message="changed")


def things() -> Plugin:
    module = ModuleType("things")
    module.__dict__["register_routes"] = hookimpl(lambda: [routes])
    return Plugin("things", module, "this test")


class Server:
    """One API server of a cluster, and clients that keep no cookies."""

    def __init__(self, app: web.Application, context: Context, runner: web.AppRunner) -> None:
        self.app, self.context, self.runner = app, context, runner
        self.host = "{}:{}".format(*runner.addresses[0][:2])

    def ask(self, method: str, path: str, cookie: str | None = None, **options: Any) -> asyncio.Task[Reply]:
        """Send a request; `await` it for its reply."""
        return asyncio.ensure_future(self._ask(method, path, cookie, **options))

    async def _ask(self, method: str, path: str, cookie: str | None, **options: Any) -> Reply:
        headers = dict(options.pop("headers", {}))
        if cookie is not None:
            headers["Cookie"] = f"PVC_SESSION={cookie}"
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client,
            client.request(
                method, f"http://{self.host}/api/v1{path}", headers=headers, allow_redirects=False, **options
            ) as reply,
        ):
            return Reply(reply, await reply.text())

    async def log_in(self, token: str = TOKEN, cookie: str | None = None) -> str:
        """The cookie of a new session."""
        reply = await self.ask("POST", "/auth/login", cookie, data={"token": token})
        assert (reply.status, reply.json) == (200, {"message": "Logged in"})
        assert reply.cookie
        return reply.cookie

    async def status(self, cookie: str | None = None, key: str | None = None, method: str = "GET") -> int:
        """Return the reply to a request with a cookie, a key or neither."""
        return (await self.ask(method, "/thing", cookie, headers={"X-Api-Key": key} if key else {})).status


class Reply:
    """An answer that was read."""

    def __init__(self, reply: aiohttp.ClientResponse, text: str) -> None:
        self.status, self.headers, self.text = reply.status, reply.headers, text
        self.kind = reply.content_type
        self.morsel = reply.cookies.get("PVC_SESSION")

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def cookie(self) -> str | None:
        """The session that it sets: empty for one that it takes away."""
        return self.morsel.value if self.morsel is not None else None


class Clock(VirtualClock):
    """Tells who waits."""

    def waits(self) -> list[float]:
        """Return how long each sleeper will still sleep."""
        return sorted(round(due - self.time(), 3) for due, _, future in self._sleepers if not future.done())


class Cluster:
    """API servers over one store, on a clock that stands still."""

    def __init__(self) -> None:
        self.clock, self.memory = Clock(), MemoryServer()
        self._stack = AsyncExitStack()

    async def start(
        self,
        names: Sequence[str] = (),
        *,
        enabled: bool = True,
        key: str = SECRET_KEY,
        listen_address: str = "127.0.0.1",
        allowed_hosts: Sequence[str] = (),
        **authentication: Any,
    ) -> Server:
        """One more API server."""
        registry = collect([things()])
        section = {"tokens": [{"token": TOKEN}, {"token": ""}, {"token": OTHER_TOKEN}]} | authentication
        api = {
            "listen_address": listen_address,
            "allowed_hosts": allowed_hosts,
            "authentication": {"enabled": enabled, "secret_key": key} | section,
            "ssl": {"enabled": False},
        }
        settings = minimal_settings(registry, api=api)
        context = make_context(Role.API, settings, registry, MemoryTree(self.memory), self.clock)
        app = create_app(context, names)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return Server(app, context, runner)

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    yield cluster
    await cluster.close()


@pytest.fixture
async def server(cluster: Cluster) -> Server:
    return await cluster.start()


async def passes(clock: Clock, task: asyncio.Task[Reply]) -> tuple[Reply, float]:
    """The reply to a request that may be made to wait, and for how long it was."""
    begun = clock.time()
    async with asyncio.timeout(20):
        while not (await asyncio.wait([task], timeout=0.005))[0]:
            for seconds in clock.waits()[:1]:
                await clock.advance(seconds)
    return task.result(), round(clock.time() - begun, 3)


async def until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a condition of the server
            await asyncio.sleep(0.001)


async def wrong(cluster: Cluster, server: Server, **headers: str) -> float:
    """Return how long a wrong key is delayed."""
    reply, seconds = await passes(cluster.clock, server.ask("GET", "/thing", headers={"X-Api-Key": "wrong", **headers}))
    assert reply.status == 401
    return seconds


# Who is let in


async def test_the_requester_is_the_description_of_the_token(cluster: Cluster) -> None:
    server = await cluster.start(tokens=[{"token": TOKEN, "description": "the cook"}, {"token": OTHER_TOKEN}])
    cookies = [await server.log_in(TOKEN), await server.log_in(OTHER_TOKEN)]
    asked = [await server.ask("GET", "/thing/asker", headers={"X-Api-Key": key}) for key in (TOKEN, OTHER_TOKEN)]
    asked += [await server.ask("GET", "/thing/asker", cookie) for cookie in cookies]
    assert [reply.json["message"] for reply in asked] == ["the cook", "None"] * 2
    server.app[ADMISSION].replace_tokens({TOKEN: "the gardener"})
    assert (await server.ask("GET", "/thing/asker", cookies[0])).json["message"] == "the gardener"
    off = await cluster.start(enabled=False)
    assert (await off.ask("GET", "/thing/asker")).json["message"] == "None"


async def test_a_request_without_credentials_requires_authentication(server: Server) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        reply = await server.ask(method, "/thing")
        assert (reply.status, reply.kind) == (401, "application/json")
        assert reply.json == {"message": "Authentication required", "code": "authentication-required"}
    assert (await server.ask("HEAD", "/thing")).status == 401


async def test_a_problem_document_requires_authentication_too(server: Server) -> None:
    reply = await server.ask("GET", "/thing", headers={"Accept": PROBLEM})
    assert (reply.status, reply.kind) == (401, PROBLEM)
    assert (reply.json["detail"], reply.json["code"]) == ("Authentication required", "authentication-required")


@pytest.mark.parametrize("token", [TOKEN, OTHER_TOKEN])
async def test_a_token_in_the_header_authorizes_one_request(server: Server, token: str) -> None:
    reply = await server.ask("POST", "/thing", headers={"X-Api-Key": token}, data={"size": "1"})
    assert (reply.status, reply.json, reply.cookie) == (200, {"message": "changed"}, None)
    assert await server.status() == 401
    assert server.context.store.all(Login) == []


@pytest.mark.parametrize(
    "key", ["", "0", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), f"{TOKEN},{TOKEN}", f'"{TOKEN}"', "\u00e4", "a" * 8000]
)
async def test_a_wrong_token_is_refused(cluster: Cluster, server: Server, key: str) -> None:
    reply, _ = await passes(cluster.clock, server.ask("GET", "/thing", headers={"X-Api-Key": key}))
    assert (reply.status, reply.json["code"]) == (401, "authentication-required")


async def test_a_key_of_undecodable_bytes_is_refused(cluster: Cluster, server: Server) -> None:
    reader, writer = await asyncio.open_connection(*server.runner.addresses[0][:2])
    writer.write(
        b"GET /api/v1/thing HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: \xff\xfe\r\nCookie: PVC_SESSION=\xff\xfe\r\n\r\n"
    )
    await until(lambda: cluster.clock.waits() == [0.1])
    await cluster.clock.advance(0.1)
    assert b" 401 " in await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()


async def test_the_body_of_a_refused_request_is_not_read(server: Server) -> None:
    reader, writer = await asyncio.open_connection(*server.runner.addresses[0][:2])
    writer.write(b"POST /api/v1/thing HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n")
    assert b" 401 " in await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()


async def test_the_root_login_and_logout_are_public(server: Server) -> None:
    assert (await server.ask("GET", "")).status == 209
    assert (await server.ask("GET", "/auth/login")).status == 200
    assert (await server.ask("POST", "/auth/logout")).status == 200
    assert (await server.ask("GET", "/nowhere")).status == 404


async def test_disabled_authentication_allows_everything_and_says_so(cluster: Cluster) -> None:
    server = await cluster.start(enabled=False, key="", tokens=[])
    assert await server.status(cookie="x", key="y", method="POST") == 200
    for method, path, values in [
        ("GET", "/auth/login", {}),
        ("POST", "/auth/login", {}),
        ("POST", "/auth/login", {"token": "any"}),
        ("GET", "/auth/logout", {}),
        ("POST", "/auth/logout", {}),
    ]:
        reply = await server.ask(method, path, params=values)
        assert (reply.status, reply.json) == (200, {"message": "Authentication is disabled"})
        assert reply.cookie is None


# How sessions begin


async def test_the_login_form_posts_a_token_and_needs_nothing_else(server: Server) -> None:
    reply = await server.ask("GET", "/auth/login")
    assert (reply.status, reply.kind) == (200, "text/html")
    assert '<form method="post" action="/api/v1/auth/login">' in reply.text
    assert '<input type="password" name="token"' in reply.text
    assert "src=" not in reply.text
    assert "http:" not in reply.text
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]


async def test_a_login_sets_a_cookie_that_authorizes(server: Server) -> None:
    cookie = await server.log_in()
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        assert await server.status(cookie, method=method) == 200


@pytest.mark.parametrize("place", ["data", "json", "params"])
async def test_a_login_accepts_its_token_in_any_place(server: Server, place: str) -> None:
    reply = await server.ask("POST", "/auth/login", **{place: {"token": TOKEN}})
    assert (reply.status, bool(reply.cookie)) == (200, True)


async def test_the_cookie_is_hidden_from_scripts_and_other_sites(server: Server) -> None:
    reply = await server.ask("POST", "/auth/login", data={"token": TOKEN})
    morsel = reply.morsel
    assert morsel is not None
    assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Strict", "/")
    assert (morsel["secure"], morsel["domain"], morsel["max-age"]) == ("", "", str(8 * HOUR))


async def test_a_browser_is_redirected_after_its_login(server: Server) -> None:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    reply = await server.ask("POST", "/auth/login", data={"token": TOKEN}, headers={"Accept": accept})
    assert (reply.status, reply.headers["Location"]) == (302, "/api/v1")
    assert reply.cookie
    assert await server.status(reply.cookie) == 200


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/html;q=0.5", "text/html;q=0"])
async def test_a_program_is_not_redirected(server: Server, accept: str) -> None:
    assert (await server.ask("POST", "/auth/login", data={"token": TOKEN}, headers={"Accept": accept})).status == 200


@pytest.mark.parametrize("token", ["", "0", TOKEN[:-1], TOKEN + "0", "a" * 100_000])
async def test_a_wrong_token_starts_no_session(cluster: Cluster, server: Server, token: str) -> None:
    reply, _ = await passes(cluster.clock, server.ask("POST", "/auth/login", data={"token": token}))
    assert (reply.status, reply.cookie) == (401, None)
    assert reply.json == {"message": "Cannot log in: this is not a valid token.", "code": "token-not-valid"}
    assert server.context.store.all(Login) == []


async def test_a_login_without_a_token_is_refused(server: Server) -> None:
    reply = await server.ask("POST", "/auth/login")
    assert (reply.status, reply.json["code"]) == (510, "invalid-value")
    assert reply.json["message"] == "The argument 'token' is missing."


async def test_a_get_does_not_log_in(server: Server) -> None:
    reply = await server.ask("GET", "/auth/login", params={"token": TOKEN})
    assert (reply.status, reply.cookie) == (510, None)


async def test_a_login_gets_a_new_session_and_ends_the_old_one(server: Server) -> None:
    first = await server.log_in()
    second = await server.log_in(OTHER_TOKEN, cookie=first)
    assert first != second
    assert (await server.status(first), await server.status(second)) == (401, 200)
    assert len(server.context.store.all(Login)) == 1


async def test_a_login_does_not_adopt_a_given_session(server: Server) -> None:
    assert await server.log_in(cookie="chosen-by-somebody-else") != "chosen-by-somebody-else"


async def test_two_logins_with_one_token_are_two_sessions(server: Server) -> None:
    first, second = await server.log_in(), await server.log_in()
    await server.ask("POST", "/auth/logout", first)
    assert (await server.status(first), await server.status(second)) == (401, 200)


async def test_the_number_of_sessions_of_a_token_is_limited(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    monkeypatch.setattr(logins, "MAX_PER_TOKEN", 3)
    server = await cluster.start()
    other = await server.log_in(OTHER_TOKEN)
    cookies = []
    for _ in range(5):
        cookies.append(await server.log_in())
        await cluster.clock.advance(1)
    assert [await server.status(cookie) for cookie in [other, *cookies]] == [200, 401, 401, 200, 200, 200]


async def test_a_key_is_only_checked_without_a_valid_session(cluster: Cluster, server: Server) -> None:
    cookie = await server.log_in()
    assert await server.status(cookie, key="wrong") == 200
    await server.ask("GET", "/auth/logout", cookie)
    assert await server.status(cookie, key=TOKEN) == 200


# How sessions end


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_logout_ends_the_session_and_removes_the_cookie(server: Server, method: str) -> None:
    cookie = await server.log_in()
    reply = await server.ask(method, "/auth/logout", cookie)
    assert (reply.status, reply.json, reply.cookie) == (200, {"message": "Logged out"}, "")
    assert reply.morsel is not None
    assert (reply.morsel["max-age"], reply.morsel["path"]) == ("0", "/")
    assert server.context.store.all(Login) == []


async def test_a_logout_without_a_session_succeeds(server: Server) -> None:
    reply = await server.ask("POST", "/auth/logout")
    assert (reply.status, reply.json, reply.cookie) == (200, {"message": "Logged out"}, None)
    assert (await server.ask("POST", "/auth/logout", "rubbish")).cookie == ""


async def test_a_copied_cookie_is_invalid_everywhere_after_the_logout(cluster: Cluster, server: Server) -> None:
    other = await cluster.start()
    copied = await server.log_in()
    assert (await server.status(copied), await other.status(copied)) == (200, 200)
    await other.ask("POST", "/auth/logout", copied)
    assert (await server.status(copied), await other.status(copied)) == (401, 401)
    started_later = await cluster.start()
    assert await started_later.status(copied) == 401


async def test_a_session_survives_a_restart(cluster: Cluster, server: Server) -> None:
    cookie = await server.log_in()
    await server.runner.cleanup()
    assert await (await cluster.start()).status(cookie) == 200


async def test_a_login_is_valid_at_once_on_a_server_that_has_not_seen_it(
    monkeypatch: pytest.MonkeyPatch, cluster: Cluster, server: Server
) -> None:
    other = await cluster.start()
    monkeypatch.setattr(MemoryTree, "hear", lambda *_: None)  # its watches are late
    cookie = await server.log_in()
    assert other.context.store.all(Login) == []
    assert await other.status(cookie) == 200


async def test_a_logout_ends_a_session_that_its_server_has_not_seen(
    monkeypatch: pytest.MonkeyPatch, cluster: Cluster, server: Server
) -> None:
    other = await cluster.start()
    with monkeypatch.context() as patch:
        patch.setattr(MemoryTree, "hear", lambda *_: None)
        cookie = await server.log_in()
        assert (await other.ask("POST", "/auth/logout", cookie)).status == 200
    assert await (await cluster.start()).status(cookie) == 401


async def test_a_session_ends_when_its_token_leaves_the_configuration(cluster: Cluster, server: Server) -> None:
    removed, kept = await server.log_in(TOKEN), await server.log_in(OTHER_TOKEN)
    assert await server.status(removed, method="POST") == 200
    server.app[ADMISSION].replace_tokens([OTHER_TOKEN])
    assert (await server.status(removed), await server.status(kept)) == (401, 200)
    reply, _ = await passes(cluster.clock, server.ask("GET", "/thing", headers={"X-Api-Key": TOKEN}))
    assert reply.status == 401
    restarted = await cluster.start(tokens=[{"token": OTHER_TOKEN}])
    assert (await restarted.status(removed), await restarted.status(kept)) == (401, 200)


async def test_an_added_token_is_valid_at_once(server: Server) -> None:
    server.app[ADMISSION].replace_tokens(["new"])
    assert await server.status(key="new") == 200


async def test_a_session_ends_after_its_time_even_if_in_use(cluster: Cluster, server: Server) -> None:
    cookie = await server.log_in()
    for _ in range(7):
        await cluster.clock.advance(HOUR)
        assert await server.status(cookie) == 200
    await cluster.clock.advance(HOUR - 1)
    assert await server.status(cookie) == 200
    await cluster.clock.advance(1)
    assert await server.status(cookie) == 401


async def test_the_lifetime_of_sessions_is_a_setting(cluster: Cluster) -> None:
    server = await cluster.start(session_seconds=60)
    cookie = await server.log_in()
    await cluster.clock.advance(59)
    assert await server.status(cookie) == 200
    await cluster.clock.advance(1)
    assert await server.status(cookie) == 401


async def test_a_shorter_lifetime_applies_to_existing_sessions(cluster: Cluster, server: Server) -> None:
    cookie = await server.log_in()
    await cluster.clock.advance(120)
    assert await (await cluster.start(session_seconds=60)).status(cookie) == 401


async def test_reads_with_a_session_continue_while_the_store_is_unavailable(cluster: Cluster, server: Server) -> None:
    cookie = await server.log_in()
    await cluster.clock.advance(60)
    cluster.memory.stop()
    assert await server.status(cookie) == 200
    reply = await server.ask("POST", "/auth/login", data={"token": TOKEN})
    assert (reply.status, reply.json["code"], reply.cookie) == (510, "zookeeper-unavailable", None)
    reply = await server.ask("POST", "/auth/logout", cookie)
    assert (reply.status, reply.json["code"], reply.cookie) == (510, "zookeeper-unavailable", None)
    assert await server.status(cookie) == 200
    cluster.memory.start()
    assert (await server.ask("POST", "/auth/logout", cookie)).status == 200
    assert await server.status(cookie) == 401


# Cookies that are not ours


@pytest.mark.parametrize("place", range(0, 160, 7))
async def test_a_manipulated_cookie_is_invalid(server: Server, place: int) -> None:
    cookie = await server.log_in()
    place = min(place, cookie.rstrip("=").__len__() - 2)
    changed = cookie[:place] + ("A" if cookie[place] != "A" else "B") + cookie[place + 1 :]
    assert await server.status(changed) == 401
    assert await server.status(cookie) == 200


@pytest.mark.parametrize(
    "cookie",
    [
        *("", "x", "gAAAAA", "gAAAAA" * 1000, '"', "=;=", "%ff"),
        pytest.param(Fernet(Fernet.generate_key()).encrypt(b"x").decode(), id="of-another-key"),
    ],
)
async def test_a_forged_cookie_is_invalid(server: Server, cookie: str) -> None:
    await server.log_in()
    assert await server.status(cookie) == 401


async def test_a_cookie_of_another_secret_key_is_invalid(cluster: Cluster, server: Server) -> None:
    other = await cluster.start(key="l" * 32)
    cookie = await server.log_in()
    assert await other.status(cookie) == 401
    await other.ask("POST", "/auth/logout", cookie)
    assert await server.status(cookie) == 200


async def test_the_records_of_sessions_do_not_authorize(server: Server) -> None:
    cookie = await server.log_in()
    (login,) = server.context.store.all(Login)
    for stolen in (login.id, login.fingerprint):
        assert await server.status(stolen) == 401
        assert stolen not in cookie


# Nothing is told


async def test_tokens_and_sessions_are_not_in_the_store_the_log_or_a_reply(
    cluster: Cluster, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    replies = []
    cookie = await server.log_in()
    secrets = [TOKEN, SECRET_KEY, cookie, "wrong-but-nearly"]
    for method, path, options in [
        ("POST", "/auth/login", {"data": {"token": "wrong-but-nearly"}}),
        ("POST", "/auth/login", {"json": {"token": [TOKEN, TOKEN]}}),
        ("POST", "/auth/login", {"params": {"token": TOKEN}, "data": {"token": "wrong-but-nearly"}}),
        ("GET", "/thing", {"headers": {"X-Api-Key": "wrong-but-nearly"}}),
        ("POST", "/thing", {"cookie": cookie, "data": {"size": "x"}}),
        ("GET", "/auth/logout", {"cookie": cookie}),
    ]:
        replies.append(await passes(cluster.clock, server.ask(method, path, **options)))
    logged = "\n".join(record.getMessage() for record in caplog.records)
    stored = (
        b"".join(node.data for node in cluster.memory.documents.values()) + "".join(cluster.memory.documents).encode()
    )
    for secret in secrets:
        assert secret not in logged
        assert secret.encode() not in stored
        for reply, _ in replies:
            assert secret not in reply.text + str(reply.headers)
    assert "wrong tokens from 127.0.0.1: 1" in logged


# Guessing


WAITS = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0]


async def test_the_delay_after_wrong_tokens_grows_up_to_a_few_seconds(cluster: Cluster, server: Server) -> None:
    assert [await wrong(cluster, server) for _ in WAITS] == WAITS


async def test_wrong_logins_and_wrong_keys_are_counted_together(cluster: Cluster, server: Server) -> None:
    for _ in range(5):
        await passes(cluster.clock, server.ask("POST", "/auth/login", data={"token": "wrong"}))
    assert await wrong(cluster, server) == 3.2


async def test_concurrent_wrong_tokens_are_delayed_like_consecutive_ones(cluster: Cluster, server: Server) -> None:
    """However many connections send them; those that find no place in line are refused at once."""
    tasks = [server.ask("GET", "/thing", headers={"X-Api-Key": f"wrong{number}"}) for number in range(100)]
    places = 1 + throttle.MAX_WAITING  # the first one is checked at once, and answered after its delay
    await until(lambda: sum(task.done() for task in tasks) == 100 - places)
    refused = [task.result() for task in tasks if task.done()]
    assert {(reply.status, reply.json["code"]) for reply in refused} == {(510, "too-many-attempts")}
    for done, delay in enumerate([*WAITS, 4.0, 4.0, 4.0], 101 - places):
        assert sum(task.done() for task in tasks) == done - 1
        await cluster.clock.advance(delay)
        await until(lambda: sum(task.done() for task in tasks) >= done)  # noqa: B023 - it is awaited here
    assert sorted({(await task).status for task in tasks}) == [401, 510]
    reply = await server.ask("GET", "/thing", headers={"X-Api-Key": TOKEN, "Accept": PROBLEM})
    assert reply.status == 200


async def test_a_right_token_is_answered_at_once_after_20_wrong_ones(cluster: Cluster, server: Server) -> None:
    for _ in range(20):
        await wrong(cluster, server)
    before = cluster.clock.time()
    assert await server.status(key=TOKEN) == 200
    assert await server.status(await server.log_in()) == 200
    assert cluster.clock.time() == before


async def test_a_delayed_wrong_token_does_not_block_others(cluster: Cluster, server: Server) -> None:
    assert await server.status(key=TOKEN) == 200
    waiting = server.ask("GET", "/thing", headers={"X-Api-Key": "wrong"})
    await until(lambda: cluster.clock.waits() == [0.1])
    assert await server.status(key=TOKEN) == 200
    assert await server.status() == 401
    assert not waiting.done()
    assert (await passes(cluster.clock, waiting))[0].status == 401


async def test_wrong_tokens_are_forgotten_after_a_while(cluster: Cluster, server: Server) -> None:
    for _ in range(8):
        await wrong(cluster, server)
    await cluster.clock.advance(601)
    assert await wrong(cluster, server) == 0.1


async def test_a_header_with_another_client_address_is_ignored(cluster: Cluster, server: Server) -> None:
    waits = [await wrong(cluster, server, **{"X-Forwarded-For": f"10.0.0.{number}"}) for number in range(6)]
    assert waits == WAITS[:6]


# Other sites

FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://{host}"},
    {"Sec-Fetch-Site": "rubbish"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://{host}.evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Referer": "http://evil.example/page?{host}"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
    {"Sec-Fetch-Site": "none", "Referer": "http://evil.example/"},
    {"Origin": "http://{host}", "Referer": "http://evil.example/"},
]
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
OWN = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://{host}"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://{host}"},
    {"Referer": "http://{host}/api/v1/docs"},
]


def filled(headers: dict[str, str], server: Server) -> dict[str, str]:
    return {name: value.format(host=server.host) for name, value in headers.items()}


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_a_cross_site_request_is_refused(cluster: Cluster, headers: dict[str, str], enabled: bool) -> None:
    """Whatever it asks for, and whether it has a session, a token or neither."""
    server = await cluster.start(enabled=enabled)
    headers = filled(headers, server)
    for cookie, key in ((await server.log_in() if enabled else None, {}), (None, {"X-Api-Key": TOKEN})):
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
            reply = await server.ask(method, "/thing", cookie, headers=headers | key)
            assert (reply.status, reply.json["code"]) == (510, "cross-site")
    assert (await server.ask("HEAD", "/nowhere", headers=headers)).status == 510
    reply = await server.ask("POST", "/thing", headers=headers | {"Accept": PROBLEM})
    assert (reply.status, reply.json["code"]) == (403, "cross-site")
    assert reply.json["detail"] == "Cannot POST '/api/v1/thing': a page of another site sent the request."


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_a_cross_site_request_can_neither_log_in_nor_log_out(server: Server, headers: dict[str, str]) -> None:
    cookie = await server.log_in()
    headers = filled(headers, server)
    for method, sent in itertools.product(("GET", "POST"), (headers, headers | LINK)):
        for shown in (cookie, None):  # a browser shows no SameSite=Strict cookie, but would take its removal
            reply = await server.ask(method, "/auth/logout", shown, headers=sent)
            assert (reply.status, reply.json["code"], reply.cookie) == (510, "cross-site", None)
    reply = await server.ask("POST", "/auth/login", headers=headers, data={"token": TOKEN})
    assert (reply.status, reply.json["code"], reply.cookie) == (510, "cross-site", None)
    assert await server.status(cookie) == 200


@pytest.mark.parametrize("headers", OWN, ids=str)
async def test_same_site_requests_and_programs_are_accepted(server: Server, headers: dict[str, str]) -> None:
    headers = filled(headers, server)
    reply = await server.ask("POST", "/auth/login", headers=headers, data={"token": TOKEN})
    for method in ("POST", "PUT", "DELETE"):
        assert (await server.ask(method, "/thing", reply.cookie, headers=headers)).status == 200
    assert (await server.ask("GET", "/auth/logout", reply.cookie, headers=headers)).cookie == ""


async def test_a_link_of_another_site_can_be_followed(cluster: Cluster, server: Server) -> None:
    cookie = await server.log_in()
    for method in ("GET", "HEAD"):
        assert (await server.ask(method, "/thing", cookie, headers=LINK)).status == 200
    assert (await server.ask("POST", "/thing", cookie, headers=LINK)).json["code"] == "cross-site"
    for name in ("Sec-Fetch-Mode", "Sec-Fetch-Dest"):
        for value in ("iframe", "no-cors", "image", "websocket"):
            reply = await server.ask("GET", "/thing", cookie, headers=LINK | {name: value})
            assert reply.json["code"] == "cross-site"


# Hosts

OURS = ["127.0.0.1", "10.1.2.3:7370", "[::1]:7370", "[fd00::9]", "LOCALHOST", "localhost.:1", "a.localhost", "hv1"]
OURS += ["HV1.example.com.:7370", "pvc.example.com"]
THEIRS = ["evil.example", "evil.example:7370", "127.0.0.1.evil.example", "localhost.evil.example", "hv1.evil.example"]
THEIRS += ["xlocalhost", "127.0.0.1:7370@evil.example", "[::1].evil.example", "", ".", "[evil.example]", "a b", "1.2.3"]
NAMES = ("hv1", "hv1.example.com")


@pytest.mark.parametrize("host", OURS)
async def test_addresses_and_names_of_this_machine_are_hosts(cluster: Cluster, host: str) -> None:
    server = await cluster.start(NAMES, enabled=False, allowed_hosts=["PVC.example.com"])
    assert (await server.ask("POST", "/thing", headers={"Host": host, "Origin": f"http://{host}"})).status == 200


@pytest.mark.parametrize("host", THEIRS)
async def test_another_host_is_refused(cluster: Cluster, host: str) -> None:
    server = await cluster.start(NAMES, enabled=False, allowed_hosts=["pvc.example.com"])
    for method in ("GET", "POST"):
        reply = await server.ask(method, "/thing", headers={"Host": host, "Sec-Fetch-Site": "same-origin"})
        assert (reply.status, reply.json["code"]) == (510, "host-not-allowed")
        assert f"{host!r} is not a name of this API" in reply.json["message"]
        assert "pvc.api.allowed_hosts" in reply.json["message"]


async def test_a_host_in_an_absolute_request_target_is_checked(cluster: Cluster) -> None:
    server = await cluster.start(enabled=False)
    for target, status in (("http://evil.example/api/v1", b" 510 "), ("http://127.0.0.1/api/v1", b" 209 ")):
        first = await said(server, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert status in first
    assert b" 209 " in await said(server, b"GET /api/v1 HTTP/1.0\r\n\r\n")
    assert b" 510 " in await said(server, b"GET /api/v1 HTTP/1.0\r\nOrigin: null\r\n\r\n")


async def said(server: Server, request: bytes) -> bytes:
    """The first line of the answer to some bytes."""
    reader, writer = await asyncio.open_connection(*server.runner.addresses[0][:2])
    writer.write(request)
    first = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()
    return first


@pytest.mark.parametrize(
    ("address", "enabled", "allowed", "refused"),
    [
        ("127.0.0.1", True, [], True),
        ("::1", True, [], True),
        ("::ffff:127.0.0.1", True, [], True),
        ("0.0.0.0", False, [], True),
        ("10.0.0.1", False, [], True),
        ("0.0.0.0", True, [], False),
        ("10.0.0.1", True, [], False),
        ("10.0.0.1", True, ["pvc.example.com"], True),
    ],
)
async def test_hosts_matter_without_tokens_or_on_loopback_or_if_they_are_listed(
    cluster: Cluster, address: str, enabled: bool, allowed: list[str], refused: bool
) -> None:
    server = await cluster.start(enabled=enabled, listen_address=address, allowed_hosts=allowed)
    reply = await server.ask("GET", "", headers={"Host": "other.example.com"})
    assert reply.status == (510 if refused else 209)


async def test_every_reply_forbids_other_sites_to_embed_it(cluster: Cluster, server: Server) -> None:
    for path in ("", "/thing", "/nowhere", "/auth/login"):
        reply = await server.ask("GET", path)
        assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert reply.headers.getall("X-Content-Type-Options") == ["nosniff"]
        assert reply.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("line", [b"GET /api/v1", b"GET /api/v1 HTTP/0.9", b"GET /api/v1 HTTP/2.0\r\nHost: 127.0.0.1"])
async def test_other_versions_of_http_are_refused(server: Server, line: bytes) -> None:
    assert b" 400 " in await said(server, line + b"\r\n\r\n")
