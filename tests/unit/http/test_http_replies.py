"""What a route returns becomes a reply."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from pydantic import BaseModel

from pvcd.http import Encoded, Message, Text
from pvcd.http.replies import encode


class Thing(BaseModel):
    name: str
    node: str | None = None
    load: float = 0.5


def body(reply: web.Response) -> bytes:
    assert isinstance(reply.body, bytes)
    return reply.body


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
def test_results_are_json(result: object, expected: object) -> None:
    reply = encode(result, 209)
    assert (reply.status, reply.content_type) == (209, "application/json")
    assert json.loads(body(reply)) == expected


def test_a_reply_that_extends_a_message_leaves_out_no_warnings() -> None:
    class Task(Message):
        task_id: str | None = None

    assert json.loads(body(encode(Task(message="Begun."), 200))) == {"message": "Begun.", "task_id": None}


def test_text_keeps_its_content_type() -> None:
    reply = encode(Text("<a>ä</a>", "application/xml"), 200)
    assert reply.headers["Content-Type"] == "application/xml; charset=utf-8"
    assert body(reply).decode() == "<a>ä</a>"


@pytest.mark.parametrize("result", [None, "text", 3, object()])
def test_nothing_else_can_be_returned(result: Any) -> None:
    with pytest.raises(TypeError, match=type(result).__name__):
        encode(result, 200)
