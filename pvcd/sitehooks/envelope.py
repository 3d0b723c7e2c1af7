"""The input of a site hook: a JSON document on standard input, and its most used values as PVC_ variables."""

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

MAX_VARIABLE_BYTES = 4096
"""A longer value is in the document only."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Envelope = dict[str, Any]


def envelope(
    kind: OperationKind, operation: Operation, *, time: float, place: str, node: str = "", user: str | None = None
) -> Envelope:
    """Build the document for all site hooks of an event."""
    document: Envelope = {
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
        document["failure"] = _failure(operation.failure)
    elif operation.result is not None:
        document["result"] = _plain(operation.result)
    return document


def document_of(context: Context, operation: Operation) -> Envelope:
    """Build the document for an operation in this process."""
    kind, now = kind_of(context, operation.name), context.clock.time()
    return envelope(kind, operation, time=now, place=context.role.value, node=context.node, user=context.user)


def _arguments(kind: OperationKind, arguments: Mapping[str, Any]) -> dict[str, Any]:
    named = {kind.names.get(key, key): value for key, value in arguments.items()}
    return {
        name: _plain(kind.redactions[name](value) if name in kind.redactions else value)
        for name, value in named.items()
        if name not in kind.secrets
    }


def _failure(error: Exception) -> dict[str, str]:
    if isinstance(error, PvcdError):
        return {"message": error.sentence, "code": error.code}
    return {"message": f"Internal error: {type(error).__name__}.", "code": "internal-error"}


def _plain(value: object) -> Any:
    """Convert a value to what JSON has."""
    if isinstance(value, Encoded):
        return json.loads(value.body) if value.content_type == "application/json" else None
    return to_jsonable_python(value, fallback=str)


def environment(document: Envelope) -> dict[str, str]:
    """Return all environment variables of a site hook."""
    variables = {
        **{f"PVC_{name.upper()}": document[name] for name in FIELDS if name != "arguments"},
        **{f"PVC_ARGUMENT_{_word(name)}": value for name, value in document["arguments"].items()},
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
    """Return a single value as text; None for a list, an object or null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _fits(text: str) -> bool:
    return "\0" not in text and len(text.encode(errors="surrogatepass")) <= MAX_VARIABLE_BYTES and text.isprintable()
