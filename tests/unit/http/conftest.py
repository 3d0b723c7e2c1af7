"""Requests without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock

import pytest
from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from pvcd.http.routes import Route
from pvcd.http.values import read_arguments

Ask = Callable[..., web.Request]
Read = Callable[..., Awaitable[dict[str, Any]]]


def make_request(
    query: str = "",
    body: bytes | None = None,
    kind: str | None = None,
    *,
    method: str = "POST",
    path: str = "/",
    ends: bool = True,
    headers: dict[str, str] | None = None,
    match: dict[str, str] | None = None,
    limit: int = 2 * 1024 * 1024,
) -> web.Request:
    """A request as the server would make it; with `ends=False` its body never comes to an end."""
    headers = dict(headers or {}) | ({"Content-Type": kind} if kind else {})
    more: dict[str, Any] = {}
    if body is not None:
        reader = StreamReader(mock.Mock(_reading_paused=False), 2**16, loop=asyncio.get_running_loop())
        reader.feed_data(body)
        if ends:
            reader.feed_eof()
        more["payload"] = reader
    request = make_mocked_request(method, path, headers, match_info=match or {}, client_max_size=limit, **more)
    # What the parser does: the target is taken as it was sent, nothing is quoted again.
    request._rel_url = URL.build(path=path, query_string=query, encoded=True)
    return request


@pytest.fixture(scope="session")
def ask() -> Ask:
    """Makes a request."""
    return make_request


@pytest.fixture(scope="session")
def read() -> Read:
    """Reads the arguments of a request to a route."""

    async def read(
        route: Route, query: str = "", body: bytes | None = None, kind: str | None = None, **more: Any
    ) -> dict[str, Any]:
        return await read_arguments(make_request(query, body, kind, **more), route.parameters)

    return read


@pytest.fixture(scope="session")
def multipart() -> Callable[..., tuple[bytes, str]]:
    """Makes a multipart body and its content type from (headers of the part, content)."""

    def multipart(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
        lines = [b"--XX\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n" for head, content in parts]
        return b"".join(lines) + b"--XX--\r\n", "multipart/form-data; boundary=XX"

    return multipart
