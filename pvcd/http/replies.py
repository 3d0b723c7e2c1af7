"""The types that a route may return, and their conversion to replies."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from aiohttp import hdrs, web
from pydantic import BaseModel, Field
from pydantic_core import to_json

from pvcd.errors import PvcdError

JSON = "application/json"
MIN_ZIP_BYTES = 8192
"""Bytes from which on compression pays."""
TAKE_SECONDS = 60.0
"""A stream is cut off if its client takes nothing for this time."""
T = TypeVar("T")
log = logging.getLogger(__name__)


class Message(BaseModel):
    """A sentence about what was done, and warnings."""

    message: str
    warnings: list[str] | None = Field(default=None, exclude_if=lambda warnings: warnings is None)


class Encoded(Generic[T]):
    """An encoded body, such as a JSON list from memory, or a file with its content type and headers.

    Its ETag and compressed form are kept.
    """

    def __init__(self, body: bytes, content_type: str = JSON, headers: Mapping[str, str] | None = None) -> None:
        self.body = body
        self.content_type = content_type
        self.headers = headers or {}

    @cached_property
    def etag(self) -> str:
        """A hash of the body."""
        return blake2b(self.body, digest_size=12).hexdigest()

    @cached_property
    def zipped(self) -> bytes:
        """The body compressed by gzip, which is slow for a large one."""
        return gzip.compress(self.body, 1, mtime=0)


@dataclass(frozen=True, slots=True)
class Text:
    """A text body that is not JSON."""

    body: str
    content_type: str


@dataclass(frozen=True, slots=True)
class Stream:
    """A body sent in parts, such as server-sent events, until it ends or the client disconnects.

    If it raises, the connection is closed before the end of the body: the client sees that something is missing.
    """

    parts: AsyncIterator[bytes]
    content_type: str


@dataclass(frozen=True, slots=True)
class Produces:
    """The content type of a reply that is not JSON, for the API document: `Annotated[Text, Produces("text/csv")]`."""

    content_type: str


async def reply(request: web.Request, result: object, status: int) -> web.StreamResponse:
    """Return the reply for the `result` of a route: 304 for what the client has, compressed if that pays."""
    if isinstance(result, Stream):
        return await _send(request, result, status)
    if isinstance(result, Text):
        return web.Response(status=status, text=result.body, content_type=result.content_type)
    encoded = result if isinstance(result, Encoded) else _encode(result)
    if request.method not in ("GET", "HEAD") or status != HTTPStatus.OK:
        body, kind = encoded.body, encoded.content_type
        return web.Response(status=status, body=body, content_type=kind, headers=encoded.headers)
    if _has(request, encoded.etag):
        answer = web.Response(status=HTTPStatus.NOT_MODIFIED)
    elif len(encoded.body) >= MIN_ZIP_BYTES and "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
        body = await asyncio.to_thread(lambda: encoded.zipped)
        headers = {hdrs.CONTENT_ENCODING: "gzip", hdrs.VARY: hdrs.ACCEPT_ENCODING}
        answer = web.Response(status=status, body=body, content_type=encoded.content_type, headers=headers)
    else:
        answer = web.Response(status=status, body=encoded.body, content_type=encoded.content_type)
    answer.headers[hdrs.CACHE_CONTROL] = "private, no-cache"  # clients may keep it, but must revalidate
    answer.headers.update(encoded.headers)
    answer.headers[hdrs.ETAG] = f'W/"{encoded.etag}"'  # weak: the same with and without compression
    return answer


async def _send(request: web.Request, stream: Stream, status: int) -> web.StreamResponse:
    """Send a stream. One that fails is cut off: the connection is closed before the end of the body is marked."""
    headers = {hdrs.CONTENT_TYPE: stream.content_type, hdrs.CACHE_CONTROL: "no-store"}
    answer = web.StreamResponse(status=status, headers=headers)
    await answer.prepare(request)
    try:
        async for part in stream.parts:
            async with asyncio.timeout(TAKE_SECONDS):
                await answer.write(part)
        await answer.write_eof()
    except Exception as error:
        _cut_off(request, error)
    return answer


def _cut_off(request: web.Request, error: Exception) -> None:
    transport = request.transport
    if transport is None or transport.is_closing():  # the client hung up
        return
    if isinstance(error, TimeoutError):
        log.warning("%s %a cut off: the client takes nothing", request.method, request.path)
        transport.abort()
        return
    if isinstance(error, PvcdError):
        log.warning("%s %a cut off: %s", request.method, request.path, error)
    else:
        log.error("%s %a failed", request.method, request.path, exc_info=error)
    transport.close()  # after what was sent


def _encode(result: object) -> Encoded[Any]:
    if not isinstance(result, BaseModel | list | dict):
        raise TypeError(f"a route cannot return {type(result).__name__}: see pvcd.http.replies")
    return Encoded(to_json(result, inf_nan_mode="null"))


def _has(request: web.Request, etag: str) -> bool:
    """Return whether the client has this body."""
    known = request.headers.get(hdrs.IF_NONE_MATCH)
    return known is not None and any(tag.strip() in ("*", f'W/"{etag}"', f'"{etag}"') for tag in known.split(","))
