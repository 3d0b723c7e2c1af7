"""Map errors to replies, and give each request an id."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar
from http import HTTPStatus
from uuid import uuid4

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from multidict import CIMultiDict
from pydantic_core import to_json

from pvcd.errors import PvcdError
from pvcd.http.complaints import shown

MAX_BODY = 2 * 1024 * 1024
"""Bytes of a request's body; the app's `client_max_size`."""

REQUEST_ID = "X-Request-Id"
PROBLEM = "application/problem+json"

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the present request."""

_REFUSED = re.compile(r"q\s*=\s*0(\.0*)?")

log = logging.getLogger(__name__)


class RequestIdFilter(logging.Filter):
    """Adds `%(request_id)s` to each log line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the line and let it pass."""
        record.request_id = request_id.get()
        return True


class NoHttpFilter(logging.Filter):
    """Shortens the traceback that aiohttp logs for input that is not HTTP to one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the line and let it pass."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            reason = " ".join(str(error).split())
            record.msg, record.args, record.exc_info = "%s: %.200a", (record.getMessage(), reason), None
            record.levelno, record.levelname = logging.INFO, "INFO"
        return True


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with a sentence and a code; the outermost middleware."""
    identity = uuid4().hex
    token = request_id.set(identity)
    try:
        reply = await _reply(request, handler)
    except web.HTTPException as redirect:
        redirect.headers[REQUEST_ID] = identity
        raise
    finally:
        request_id.reset(token)
    reply.headers[REQUEST_ID] = identity
    return reply


async def _reply(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except PvcdError as error:
        status = error.status if _wants_problem(request) else error.usual_status
        return _failure(request, status, error.code, error.sentence)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = CIMultiDict(
            (key, value) for key, value in error.headers.items() if not key.lower().startswith("content-")
        )
        return _failure(request, error.status, _code(error), _sentence(request, error), headers)
    except Exception:
        log.exception("%s %a failed", request.method, request.path)
        sentence = f"Internal error in request {request_id.get()}: see the log of the API."
        return _failure(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", sentence)


def _failure(
    request: web.Request, status: int, code: str, sentence: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    if not _wants_problem(request):
        body = {"message": sentence, "code": code}
        return web.Response(status=status, body=to_json(body), content_type="application/json", headers=headers)
    problem = {
        "type": "about:blank",
        "title": _title(status),
        "status": int(status),
        "detail": sentence,
        "code": code,
    }
    return web.Response(status=status, body=to_json(problem), content_type=PROBLEM, headers=headers)


def _wants_problem(request: web.Request) -> bool:
    """Return whether the client accepts RFC 9457 documents by name."""
    for accepted in ",".join(request.headers.getall(hdrs.ACCEPT, [])).split(","):
        kind, *parameters = (part.strip().lower() for part in accepted.split(";"))
        if kind == PROBLEM:
            return not any(_REFUSED.fullmatch(each) for each in parameters)
    return False


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _code(error: web.HTTPException) -> str:
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return "body-too-large"
    return _title(error.status).lower().replace(" ", "-")


def _sentence(request: web.Request, error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPNotFound):
        return f"There is nothing at {shown(request.path)}."
    if isinstance(error, web.HTTPMethodNotAllowed):
        *most, last = sorted(error.allowed_methods)
        return f"Cannot {error.method} {shown(request.path)}: use {' or '.join(filter(None, [', '.join(most), last]))}."
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return f"The body must have at most {request.client_max_size} bytes."
    return error.text or _title(error.status)
