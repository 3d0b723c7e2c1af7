"""The JSON schema of what the site's hooks read from their standard input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pvcd.declare.operations import FAIL, PHASES, POST, OperationKind

HOOK_API = 1
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


def schemas(kinds: Iterable[OperationKind]) -> dict[str, Schema]:
    """The schemas of all operations, by name."""
    return {kind.name: schema(kind) for kind in kinds}
