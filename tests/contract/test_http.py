"""The HTTP layer behind a real server: what clients send reaches a route, and each gets a reply it can read."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from pvcd.errors import Failed, NotFound
from pvcd.http import replies
from pvcd.http.middleware import MAX_BODY, PROBLEM, errors
from pvcd.http.parameters import Document, Flag, Path, Value
from pvcd.http.replies import Encoded, Message, Produces, Stream, Text
from pvcd.http.routes import Route, Routes, register

Client = TestClient[web.Request, web.Application]

routes = Routes("/api/v1", tag="Everything")


@routes.get(status=209)
async def root(context: Any) -> Message:
    """Say hello."""
    return Message(message="hello")


@routes.get("/vm")
async def list_vms(context: Any, limit: Annotated[str | None, Value("Limit")]) -> Encoded:
    """List VMs."""
    return Encoded(json.dumps([limit]).encode())


@routes.get("/vm/{vm}/dump")
async def dump(context: Any, vm: Annotated[str, Path("VM")]) -> Text:
    """Dump a VM."""
    return Text(f"<name>{vm}</name>", "application/xml")


@routes.get("/events/{ending}")
async def events(context: Any, ending: Annotated[str, Path("What ends them")]) -> Annotated[Stream, Produces("a/b")]:
    """Send events."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"one "
        if ending == "failure":
            raise Failed("Cannot go on: the source is gone.")
        if ending == "fault":
            raise ZeroDivisionError
        if ending == "lost-connection":
            raise ConnectionResetError
        while ending == "flood":
            yield b"x" * 1_000_000
        yield b"two "

    return Stream(parts(), "a/b")


@routes.post("/vm/{vm}")
async def define(
    context: Any,
    vm: Annotated[str, Path("VM")],
    xml: Annotated[str, Document("XML")],
    restart: Annotated[bool, Flag("Restart")],
) -> dict[str, Any]:
    """Define a VM."""
    return {"vm": vm, "xml": xml, "restart": restart, "by": context}


@routes.delete("/vm/{vm}", operation="vm-delete")
async def delete(context: Any, vm: Annotated[str, Path("VM")]) -> Message:
    """Delete a VM."""
    if vm == "crash":
        raise ZeroDivisionError
    raise NotFound("VM", vm)


async def call(request: web.Request, route: Route, arguments: dict[str, Any]) -> object:
    return await route.function(request.method, **arguments)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = web.Application(middlewares=[errors], client_max_size=MAX_BODY)
    register(app, routes, call)
    async with TestClient(TestServer(app)) as client:
        yield client


async def raw(client: Client, request: bytes) -> tuple[int, str]:
    """The status and body of the reply to bytes that no decent client sends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head.split(b" ")[1]), (await asyncio.wait_for(reader.readexactly(length), 10)).decode()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_route_is_called_with_its_arguments(client: Client) -> None:
    async with client.post("/api/v1/vm/web%2B1?restart", data={"xml": "<a/>"}) as reply:
        assert await reply.json() == {"vm": "web+1", "xml": "<a/>", "restart": True, "by": "POST"}
        assert (reply.status, reply.content_type) == (200, "application/json")


async def test_the_route_decides_the_status_and_kind_of_reply(client: Client) -> None:
    async with client.get("/api/v1") as reply:
        assert (reply.status, await reply.json()) == (209, {"message": "hello"})
    async with client.get("/api/v1/vm?limit=a") as reply:
        assert (reply.content_type, await reply.json()) == ("application/json", ["a"])
    async with client.get("/api/v1/vm/w%C3%A4%20b/dump") as reply:
        assert (reply.content_type, await reply.text()) == ("application/xml", "<name>w\u00e4+b</name>")
    async with client.head("/api/v1/vm") as reply:
        assert (reply.status, await reply.read()) == (200, b"")


async def test_get_accepts_a_form(client: Client) -> None:
    async with client.get("/api/v1/vm", data={"limit": "a+b"}) as reply:
        assert await reply.json() == ["a+b"]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/xml", "application/octet-stream"])
async def test_a_raw_document_arrives_unchanged(client: Client, kind: str) -> None:
    xml = "<a>\n&amp;\u00e4+%20=</a>\n" * 40_000
    async with client.post("/api/v1/vm/a", data=xml.encode(), headers={"Content-Type": kind}) as reply:
        assert (await reply.json())["xml"] == xml


async def test_a_file_of_a_multipart_form_arrives_unchanged(client: Client) -> None:
    xml = "<a>\r\n--\r\n</a>\n" * 50_000
    form = aiohttp.FormData()
    form.add_field("xml", xml.encode(), filename="a.xml", content_type="application/xml")
    form.add_field("restart", "")
    async with client.post("/api/v1/vm/a", data=form) as reply:
        said = await reply.json()
    assert (said["xml"], said["restart"]) == (xml, True)


@pytest.mark.parametrize("accept", ["*/*", PROBLEM])
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "true_status", "code"),
    [
        ("DELETE", "/api/v1/vm/a", None, 510, 404, "vm-not-found"),
        ("GET", "/api/v1/vm?limt=a", None, 510, 400, "invalid-value"),
        ("POST", "/api/v1/vm/a", b'{"xml":', 510, 400, "invalid-value"),
        ("GET", "/nowhere", None, 404, 404, "not-found"),
        ("GET", "/api/v1/", None, 404, 404, "not-found"),
        ("PUT", "/api/v1/vm", None, 405, 405, "method-not-allowed"),
        ("POST", "/api/v1/vm/a", b"x" * (MAX_BODY + 1), 413, 413, "body-too-large"),
        ("DELETE", "/api/v1/vm/crash", None, 500, 500, "internal-error"),
    ],
)
async def test_each_failure_has_its_status_and_code(
    client: Client,
    *,
    accept: str,
    method: str,
    path: str,
    body: bytes | None,
    status: int,
    true_status: int,
    code: str,
) -> None:
    headers = {"Accept": accept, "Content-Type": "application/json"}
    async with client.request(method, path, data=io.BytesIO(body or b""), headers=headers) as reply:
        document = await reply.json(content_type=None)
        assert reply.status == (true_status if accept == PROBLEM else status)
        assert reply.content_type == (PROBLEM if accept == PROBLEM else "application/json")
        assert document["code"] == code
        assert document["detail" if accept == PROBLEM else "message"].endswith((".", "?"))
        assert len(reply.headers["X-Request-Id"]) == 32
        assert ("Allow" in reply.headers) == (status == 405)


async def test_a_success_has_a_request_id_too(client: Client) -> None:
    async with client.get("/api/v1", headers={"X-Request-Id": "mine"}) as reply:
        assert len(reply.headers["X-Request-Id"]) == 32


HEAD = b" HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status", "said"),
    [
        (b"GET /api/v1/vm?limit=%ff" + HEAD, 510, "The query must be valid utf-8."),
        (b"GET /api/v1/vm?limit=%zz%" + HEAD, 200, '["%zz%"]'),
        (b"GET /api/v1/vm?limit=%ed%a0%80" + HEAD, 510, "must be valid utf-8"),
        (b"GET /api/v1/vm?limit=%00" + HEAD, 510, "control character"),
        (b"GET /api/v1/vm/%00/dump" + HEAD, 510, "control character"),
        (b"GET /api/v1/vm/%ff/dump" + HEAD, 200, "<name>%ff</name>"),
        (b"GET /%ff%00" + HEAD, 404, "not-found"),
        (b"GET /api/v1/vm" + HEAD + b"Content-Type: \xff/\xfe; charset=\xff\r\nContent-Length: 8\r\n", 510, "charset"),
        (b"POST /api/v1/vm/a" + HEAD + b"Content-Type: multipart/form-data\r\nContent-Length: 8\r\n", 510, "malformed"),
        (b"POST /api/v1/vm/a" + HEAD + b"Content-Encoding: gzip\r\nContent-Length: 8\r\n", 510, "damaged"),
        (b"GET /api/v1" + HEAD + b"Accept: \xff,application/problem+json;\xff\r\n", 209, "hello"),
    ],
)
async def test_odd_requests_are_answered(client: Client, request_bytes: bytes, status: int, said: str) -> None:
    replied, body = await raw(
        client, request_bytes + (b"\r\nno gzip!" if b"Content-Length" in request_bytes else b"\r\n")
    )
    assert (replied, said in body) == (status, True), body


@pytest.mark.parametrize("cancelling", [False, True])
@pytest.mark.parametrize("kind", ["application/xml", "multipart/form-data; boundary=XX"])
async def test_a_client_that_hangs_up_leaves_no_traceback(
    caplog: pytest.LogCaptureFixture, cancelling: bool, kind: str
) -> None:
    came, ended = asyncio.Event(), asyncio.Event()

    @web.middleware
    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        came.set()
        try:
            return await handler(request)
        finally:
            ended.set()

    app = web.Application(middlewares=[watch, errors])
    register(app, routes, call)
    runner = web.AppRunner(app, handler_cancellation=cancelling)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        _, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        writer.write(f"POST /api/v1/vm/a HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n".encode())
        writer.write(b"Content-Length: 100\r\n\r\n--XX\r\n")
        await asyncio.wait_for(came.wait(), 10)
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(ended.wait(), 10)
    finally:
        await runner.cleanup()
    assert not [record for record in caplog.records if record.exc_info]


async def received(client: Client, path: str) -> bytes:
    """All bytes until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


END = b"\r\n0\r\n\r\n"


async def test_a_stream_ends_with_the_mark_of_its_end(client: Client) -> None:
    said = await received(client, "/api/v1/events/well")
    assert b"one " in said and b"two " in said and said.endswith(END)


@pytest.mark.parametrize("ending", ["failure", "fault", "lost-connection"])
async def test_a_stream_that_fails_is_cut_off(client: Client, caplog: pytest.LogCaptureFixture, ending: str) -> None:
    """And there is no second reply inside of its body."""
    said = await received(client, f"/api/v1/events/{ending}")
    assert said.count(b"HTTP/1.1") == 1 and b"one " in said
    assert not said.endswith(END)
    async with client.get(f"/api/v1/events/{ending}") as reply:
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()
    assert len(caplog.records) == 2
    assert all("cut off: Cannot go on" in each.getMessage() for each in caplog.records) == (ending == "failure")


async def test_a_client_that_takes_nothing_of_a_stream_is_cut_off(
    client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "TAKE_SECONDS", 0.2)
    _, writer = await asyncio.open_connection("127.0.0.1", client.port, limit=1)
    writer.write(b"GET /api/v1/events/flood HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(20):
        while not caplog.records:  # noqa: ASYNC110 - what the server logs
            await asyncio.sleep(0.01)
    assert "cut off: the client takes nothing" in caplog.records[0].getMessage()
    writer.close()
