"""What a hook is told: one JSON document on its standard input, and the most used of it as PVC_ variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from pydantic_core import to_jsonable_python

from pvcd.declare.context import Context
from pvcd.declare.hook_schema import FIELDS, HOOK_API
from pvcd.declare.operations import Operation, OperationKind, kind_of
from pvcd.errors import PvcdError
from pvcd.http.middleware import request_id
from pvcd.http.replies import Encoded

MAX_VARIABLE = 4096
"""Bytes of a value that stands in a variable too."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Envelope = dict[str, Any]


def envelope(
    kind: OperationKind, operation: Operation, *, time: float, place: str, node: str = "", user: str | None = None
) -> Envelope:
    """What all hooks of an event are told."""
    told: Envelope = {
        "api": HOOK_API,
        "event": uuid4().hex,
        "operation": kind.name,
        "dry_run": operation.is_dry_run,
        "time": time,
        "place": place,
        "node": node,
        "user": user,
        "request": request_id.get(),
        "arguments": _arguments(kind, operation.arguments),
    }
    if operation.failure is not None:
        told["failure"] = _failure(operation.failure)
    elif operation.result is not None:
        told["result"] = _plain(operation.result)
    return told


def told_of(context: Context, operation: Operation) -> Envelope:
    """The same, of an operation in this process."""
    kind, now = kind_of(context, operation.name), context.clock.time()
    return envelope(kind, operation, time=now, place=context.role.value, node=context.node, user=context.user)


def _arguments(kind: OperationKind, arguments: Mapping[str, Any]) -> dict[str, Any]:
    named = {kind.names.get(key, key): value for key, value in arguments.items()}
    return {name: _plain(value) for name, value in named.items() if name not in kind.secrets}


def _failure(error: Exception) -> dict[str, str]:
    if isinstance(error, PvcdError):
        return {"message": error.sentence, "code": error.code}
    return {"message": f"An internal error: {type(error).__name__}.", "code": "internal-error"}


def _plain(value: object) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Encoded):
        return json.loads(value.body) if value.content_type == "application/json" else None
    return to_jsonable_python(value, fallback=str)


def environment(told: Envelope) -> dict[str, str]:
    """All variables of a hook."""
    variables = {
        **{f"PVC_{name.upper()}": told[name] for name in FIELDS if name != "arguments"},
        **{f"PVC_ARGUMENT_{_word(name)}": value for name, value in told["arguments"].items()},
    }
    texts = {name: _text(value) for name, value in variables.items()}
    return {
        "PATH": PATH,
        "LC_ALL": "C.UTF-8",
        **{name: text for name, text in texts.items() if text is not None and _fits(text)},
    }


def _word(name: str) -> str:
    return name.upper().replace("-", "_")


def _text(value: object) -> str | None:
    """A single value as a text; None for what is a list or an object, or is not there."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _fits(text: str) -> bool:
    return "\0" not in text and len(text.encode(errors="surrogatepass")) <= MAX_VARIABLE and text.isprintable()
