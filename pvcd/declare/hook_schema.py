"""The JSON schema of the document that site hooks read from their standard input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pvcd.declare.operations import FAIL, PHASES, POST, OperationKind

HOOK_API = 1
Schema = dict[str, Any]

_TEXT, _FLAG, _NUMBER = {"type": "string"}, {"type": "boolean"}, {"type": "integer"}
FIELDS: Mapping[str, Schema] = {
    "api": {"const": HOOK_API, "description": "The version of this document; fields may be added to it."},
    "event": _TEXT | {"description": "The same for all site hooks of one event, and in every attempt."},
    "operation": _TEXT | {"description": "The name of the operation."},
    "phase": {"enum": list(PHASES), "description": "Before the operation, after it, or after it has failed."},
    "hook": _TEXT | {"description": "The name of the site hook."},
    "attempt": _NUMBER | {"description": "1 at first; counts up when the hook is run again for the same event."},
    "dry_run": _FLAG | {"description": "Whether nothing will be done: then the hook only checks."},
    "time": {"type": "number", "description": "The time of the event, in seconds since 1970."},
    "seconds": {"type": "number", "description": "The time limit of the hook, in seconds."},
    "directory": _TEXT | {"description": "The directory of the site hooks."},
    "place": _TEXT | {"description": "The daemon that runs the hook: api, node, primary or worker."},
    "node": _TEXT | {"description": "The node that runs the hook; empty in the API."},
    "user": {"type": ["string", "null"], "description": "The user who asked, if known."},
    "request": _TEXT | {"description": "The id of the request, as in the logs; - without one."},
    "arguments": {"type": "object"},
}
RESULT: Schema = {"description": "In post only: the answer of the operation."}
FAILURE: Schema = {
    "type": "object",
    "description": "In fail only: the error of the operation.",
    "properties": {"message": _TEXT, "code": _TEXT},
    "required": ["message", "code"],
}


def schema(kind: OperationKind) -> Schema:
    """Return the JSON schema of the document that the site hooks of an operation read."""
    described = {name: dict(argument) for name, argument in kind.arguments.items() if name not in kind.secrets}
    fields = {
        **FIELDS,
        "operation": {"const": kind.name, "description": kind.doc},
        "phase": FIELDS["phase"] | {"enum": list(kind.phases)},
        "arguments": {
            "type": "object",
            "description": "The arguments of the operation; null for those not given.",
            "properties": described,
        },
    }
    if POST in kind.phases:
        fields["result"] = RESULT
    if FAIL in kind.phases:
        fields["failure"] = FAILURE
    return {"type": "object", "description": kind.doc, "properties": fields, "required": list(FIELDS)}


def schemas(kinds: Iterable[OperationKind]) -> dict[str, Schema]:
    """Return the schemas of all operations, by name."""
    return {kind.name: schema(kind) for kind in kinds}
