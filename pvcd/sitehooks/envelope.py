"""What a hook is told: one JSON document on its standard input, and the most used of it as PVC_ variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pydantic_core import to_jsonable_python

from pvcd.errors import PvcdError
from pvcd.http.middleware import request_id
from pvcd.http.replies import Encoded
from pvcd.operations import Operation, OperationKind
from pvcd.sitehooks.folder import FAIL, PHASES, POST

if TYPE_CHECKING:
    from pvcd.context import Context

HOOK_API = 1
MAX_VARIABLE = 4096
"""Bytes of a value that stands in a variable too."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Envelope = dict[str, Any]
Schema = dict[str, Any]

_TEXT, _FLAG, _NUMBER = {"type": "string"}, {"type": "boolean"}, {"type": "integer"}
FIELDS: Mapping[str, Schema] = {
    "api": {"const": HOOK_API, "description": "The version of this document; fields may be added to it."},
    "event": _TEXT | {"description": "The same for all hooks of one event, and when it is told again."},
    "operation": _TEXT | {"description": "What is done."},
    "phase": {"enum": list(PHASES), "description": "Before it is done, after it, or after it has failed."},
    "hook": _TEXT | {"description": "The name of the hook."},
    "attempt": _NUMBER | {"description": "1, and more when it is told again."},
    "dry_run": _FLAG | {"description": "Whether nothing will be done: then a hook only checks."},
    "time": {"type": "number", "description": "When it happened, in seconds since 1970."},
    "seconds": {"type": "number", "description": "After so many seconds the hook is ended."},
    "directory": _TEXT | {"description": "Where the hooks stand."},
    "place": _TEXT | {"description": "The daemon that runs it: api, node, primary or worker."},
    "node": _TEXT | {"description": "The node that runs it; empty in the API."},
    "user": {"type": ["string", "null"], "description": "Who asked, as far as it is known."},
    "request": _TEXT | {"description": "The id of the request, which the logs also name; - without one."},
    "arguments": {"type": "object"},
}
RESULT: Schema = {"description": "In post only: what the operation answered."}
FAILURE: Schema = {
    "type": "object",
    "description": "In fail only: why it was not done.",
    "properties": {"message": _TEXT, "code": _TEXT},
    "required": ["message", "code"],
}


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
    kind, now = context.registry.known_operations[operation.name], context.clock.time()
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


def schema(kind: OperationKind) -> Schema:
    """The JSON schema of what the hooks of an operation are told."""
    described = {name: dict(argument) for name, argument in kind.arguments.items() if name not in kind.secrets}
    fields = {
        **FIELDS,
        "operation": {"const": kind.name, "description": kind.doc},
        "phase": FIELDS["phase"] | {"enum": list(kind.phases)},
        "arguments": {
            "type": "object",
            "description": "What it is done with; null is what was not given.",
            "properties": described,
        },
    }
    if POST in kind.phases:
        fields["result"] = RESULT
    if FAIL in kind.phases:
        fields["failure"] = FAILURE
    return {"type": "object", "description": kind.doc, "properties": fields, "required": list(FIELDS)}


def schemas(kinds: Mapping[str, OperationKind]) -> dict[str, Schema]:
    """Those of all operations, by name."""
    return {name: schema(kind) for name, kind in kinds.items()}
