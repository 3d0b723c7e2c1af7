"""Every error becomes one reply, with a sentence, a code and the id of the request."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from pvcd.errors import Changed, Failed, Invalid, Locked, NotFound, PvcdError, StoreUnavailable
from pvcd.http.middleware import MAX_BODY, PROBLEM, RequestIdFilter, errors, request_id

Ask = Callable[..., web.Request]


def raising(error: BaseException) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise error

    return handler


async def reply_to(request: web.Request, error: BaseException) -> tuple[web.Response, dict[str, Any]]:
    reply = await errors(request, raising(error))
    assert isinstance(reply, web.Response)
    assert isinstance(reply.body, bytes)
    document = json.loads(reply.body)
    assert isinstance(document, dict)
    return reply, document


class Odd(PvcdError):
    status = 599
    code = "odd"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Invalid("No."), 400, "invalid-value"),
        (NotFound("VM", "web1"), 404, "vm-not-found"),
        (Changed("/vms/1"), 409, "changed"),
        (Locked("No."), 423, "locked"),
        (Failed("No."), 503, "failed"),
        (StoreUnavailable("No."), 503, "zookeeper-unavailable"),
        (Odd("No."), 599, "odd"),
    ],
)
async def test_a_failure_is_510_or_a_problem_with_its_true_status(
    ask: Ask, error: PvcdError, status: int, code: str
) -> None:
    reply, document = await reply_to(ask(), error)
    assert (reply.status, reply.content_type) == (510, "application/json")
    assert document == {"message": error.sentence, "code": code}

    reply, document = await reply_to(ask(headers={"Accept": PROBLEM}), error)
    assert (reply.status, reply.content_type) == (status, PROBLEM)
    title = document.pop("title")
    assert title == ("Error" if status == 599 else web.Response(status=status).reason)
    assert document == {"type": "about:blank", "status": status, "detail": error.sentence, "code": code}


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("application/problem+json", True),
        ("text/html, Application/Problem+JSON;q=0.5", True),
        ("application/problem+json;q=0", False),
        ("application/problem+json; q=0.00", False),
        ("application/json, */*", False),
        ("", False),
        (";,;", False),
    ],
)
async def test_a_problem_document_requires_its_content_type(ask: Ask, accept: str, wanted: bool) -> None:
    reply, _ = await reply_to(ask(headers={"Accept": accept}), Invalid("No."))
    assert (reply.content_type == PROBLEM) == wanted


@pytest.mark.parametrize("headers", [{}, {"Accept": PROBLEM}])
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (web.HTTPNotFound(), "not-found", "'/here'"),
        (
            web.HTTPMethodNotAllowed("PUT", ["POST", "GET"]),
            "method-not-allowed",
            "Cannot PUT '/here': use GET or POST.",
        ),
        (web.HTTPRequestEntityTooLarge(MAX_BODY), "body-too-large", str(MAX_BODY)),
        (web.HTTPUnauthorized(text="Authentication required"), "unauthorized", "Authentication required"),
    ],
)
async def test_http_errors_keep_their_status(
    ask: Ask, headers: dict[str, str], error: web.HTTPException, code: str, said: str
) -> None:
    reply, document = await reply_to(ask(path="/here", headers=headers), error)
    assert reply.status == error.status
    assert document["code"] == code
    assert said in document["detail" if headers else "message"]
    assert reply.content_type == (PROBLEM if headers else "application/json")
    if error.status == 405:
        assert reply.headers["Allow"] == "GET,POST"


async def test_a_redirect_keeps_the_request_id(ask: Ask) -> None:
    with pytest.raises(web.HTTPFound) as caught:
        await errors(ask(), raising(web.HTTPFound("/elsewhere")))
    assert caught.value.headers["Location"] == "/elsewhere"
    assert len(caught.value.headers["X-Request-Id"]) == 32


@pytest.mark.parametrize("error", [KeyError("x"), TimeoutError(), OSError("disk"), RecursionError()])
async def test_another_exception_is_logged_once_and_answered_without_details(
    ask: Ask, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    reply, document = await reply_to(ask(path="/a\nb"), error)
    assert reply.status == 500
    assert document["code"] == "internal-error"
    assert reply.headers["X-Request-Id"] in document["message"]
    assert "disk" not in document["message"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt()])
async def test_cancellation_is_not_caught(ask: Ask, error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(type(error)):
        await errors(ask(), raising(error))
    assert not caplog.records
    assert request_id.get() == "-"


async def test_each_request_gets_a_new_id(ask: Ask) -> None:
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        record = logging.makeLogRecord({})
        assert RequestIdFilter().filter(record)
        seen.append((request_id.get(), record.request_id))  # type: ignore[attr-defined]
        return web.Response()

    replies = [await errors(ask(headers={"X-Request-Id": "theirs"}), handler) for _ in range(2)]
    ids = [reply.headers["X-Request-Id"] for reply in replies]
    assert seen == [(each, each) for each in ids]
    assert len(set(ids)) == 2
    assert "theirs" not in ids
    assert request_id.get() == "-"
