"""What a route may return, and the one place that turns it into a reply."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web
from pydantic import BaseModel, Field
from pydantic_core import to_json


class Message(BaseModel):
    """A sentence about what was done, and what the user should know besides."""

    message: str
    warnings: list[str] | None = Field(default=None, exclude_if=lambda warnings: warnings is None)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A body that is JSON already, such as a list that was joined from memory."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Text:
    """A body that is not JSON."""

    body: str
    content_type: str


def encode(result: object, status: int) -> web.Response:
    """The reply of a route that returned `result`."""
    if isinstance(result, Text):
        return web.Response(status=status, text=result.body, content_type=result.content_type)
    if isinstance(result, Encoded):
        body = result.body
    elif isinstance(result, BaseModel | list | dict):
        body = to_json(result, inf_nan_mode="null")
    else:
        raise TypeError(f"a route cannot return {type(result).__name__}: see pvcd.http.replies")
    return web.Response(status=status, body=body, content_type="application/json")
