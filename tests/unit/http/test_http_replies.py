"""From the value that a route returns to a reply."""

from __future__ import annotations

import gzip
import json
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from pydantic import BaseModel

from pvcd.http.replies import MIN_ZIP_BYTES, Encoded, Message, Text, reply


class Thing(BaseModel):
    name: str
    node: str | None = None
    load: float = 0.5


@pytest.fixture
def get(ask: Any) -> Any:
    async def get(result: object, status: int = 200, method: str = "GET", **headers: str) -> web.Response:
        return await reply(ask(method=method, headers=headers), result, status)

    return get


def body(answer: web.Response) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Thing(name="a"), {"name": "a", "node": None, "load": 0.5}),
        ([Thing(name="a"), Thing(name="ä")], [{"name": n, "node": None, "load": 0.5} for n in "aä"]),
        ([], []),
        ({"id": UUID(int=1), "one": Thing(name="a")}, {"id": str(UUID(int=1)), "one": Thing(name="a").model_dump()}),
        ({"load": float("nan")}, {"load": None}),
        (Encoded(b'[{"a":1}]'), [{"a": 1}]),
        (Message(message="Done."), {"message": "Done."}),
        (Message(message="Done.", warnings=["Hm."]), {"message": "Done.", "warnings": ["Hm."]}),
    ],
)
async def test_results_are_json(get: Any, result: object, expected: object) -> None:
    answer = await get(result, 209)
    assert (answer.status, answer.content_type) == (209, "application/json")
    assert json.loads(body(answer)) == expected


async def test_a_reply_that_extends_a_message_keeps_warnings(get: Any) -> None:
    class Task(Message):
        task_id: str | None = None

    assert json.loads(body(await get(Task(message="Begun.")))) == {"message": "Begun.", "task_id": None}


async def test_text_keeps_its_content_type(get: Any) -> None:
    answer = await get(Text("<a>ä</a>", "application/xml"))
    assert answer.headers["Content-Type"] == "application/xml; charset=utf-8"
    assert body(answer).decode() == "<a>ä</a>"


@pytest.mark.parametrize("result", [None, "text", 3, object()])
async def test_other_results_are_an_error(get: Any, result: Any) -> None:
    with pytest.raises(TypeError, match=type(result).__name__):
        await get(result)


async def test_an_unchanged_reply_is_not_sent_again(get: Any) -> None:
    first = await get({"a": 1})
    etag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = await get({"a": 1}, **{"If-None-Match": f'"other", {etag}'})
    assert (again.status, again.headers["ETag"], again.body) == (304, etag, None)
    assert (await get({"a": 2}, **{"If-None-Match": etag})).status == 200
    assert (await get({"a": 1}, method="POST", **{"If-None-Match": etag})).status == 200


async def test_a_large_body_is_compressed_for_clients_that_accept_it_with_the_same_etag(get: Any) -> None:
    large = Encoded(b'["' + b"x" * MIN_ZIP_BYTES + b'"]')
    plain, zipped = await get(large), await get(large, **{"Accept-Encoding": "gzip, deflate"})
    assert "Content-Encoding" not in plain.headers
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body(zipped)) == body(plain)
    assert zipped.headers["ETag"] == plain.headers["ETag"]
    small = await get({"a": 1}, **{"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in small.headers
