"""The OpenAPI 3.1 document of the API, derived from the declared routes.

An argument that is accepted in several places is described in one of them, so that everything the document allows can
be sent: in the body of a POST or PUT, else in the query string. The introduction names the others.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import to_jsonable_python

from pvcd.errors import Failed, PvcdError
from pvcd.http.admission import API_KEY
from pvcd.http.cookies import COOKIE
from pvcd.http.middleware import MAX_BODY, PROBLEM, REQUEST_ID
from pvcd.http.parameters import Parameter, Place
from pvcd.http.replies import JSON, Encoded, Produces, Stream, Text
from pvcd.http.routes import Route
from pvcd.http.values import MAX_PATH_VALUE

Schema = dict[str, Any]

STALE_SINCE = "X-PVC-Stale-Since"
METHODS = ("GET", "POST", "PUT", "DELETE")
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
RAW = ("application/xml", "text/plain", "application/octet-stream")
TEXT = r"^[^\x00-\x1f\x7f-\x9f]*$"
SEGMENT = r"^(?!\.{1,2}$)[^/\x00-\x1f\x7f-\x9f]+$"
"""One part of a path; `.` and `..` never arrive."""

INTRODUCTION = """\
A cluster of hypervisors.

**Arguments** may be in the query string, a form or a JSON body; all places are merged, and an argument that is given
twice must have the same value in both. Arguments of a POST or PUT are described here as its body and may be in the
query string instead; those of a GET or DELETE the other way round. A flag is on by its presence (`?force`), or by
`true`, `yes`, `on` or `1`; it is off by `false`, `no`, `off` or `0`. Unknown arguments are refused.

**Failures** have the status 510, a `message` for people and a stable `code` for programs. A client that sends
`Accept: application/problem+json` gets an RFC 9457 document with the true status instead.

**Lists** are sorted; one element is a list of one.
"""


class Failure(BaseModel):
    """Why the request failed."""

    message: str = Field(description="One sentence for people")
    code: str = Field(description="A stable word for programs, such as `vm-not-found`")


class Problem(BaseModel):
    """Why the request failed, as an RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str = Field(description="One sentence for people")
    code: str = Field(description="A stable word for programs, such as `vm-not-found`")


def document(routes: Iterable[Route], hooks: Mapping[str, Schema] | None = None) -> Schema:
    """Return the document of an API with these routes, in the order of their paths.

    `hooks` are the schemas of what site hooks are told of each operation; an endpoint names its operations in
    `x-pvc-operations`.
    """
    routes = sorted(routes, key=lambda route: (route.path, METHODS.index(route.method)))
    schemas = _Schemas(routes)
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PVC API",
            "version": importlib.metadata.version("pvcd"),
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": schemas.components | {f"hook.{name}": schema for name, schema in (hooks or {}).items()},
            "responses": _failures(schemas),
            "headers": HEADERS,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


# Common to all operations

HEADERS: Schema = {
    REQUEST_ID: {
        "description": "The id of the request, as in the log",
        "required": True,
        "schema": {"type": "string"},
    },
    STALE_SINCE: {
        "description": "Present while ZooKeeper cannot be reached: the reply shows the state at this time",
        "schema": {"type": "string", "format": "date-time"},
    },
    "ETag": {
        "description": "A hash of the reply: with it in `If-None-Match` the same reply is not sent again",
        "schema": {"type": "string"},
    },
}
SECURITY_SCHEMES: Schema = {
    "token": {"type": "apiKey", "in": "header", "name": API_KEY, "description": "A token of the configuration"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "A login session from `/api/v1/auth/login`",
    },
}


def _failures(schemas: _Schemas) -> Schema:
    """Return the replies of all failures, by the names that operations refer to."""
    failure = {JSON: {"schema": schemas.of(Failure)}}
    problem = {PROBLEM: {"schema": schemas.of(Problem)}}
    return {
        "Failed": _response("Why the request failed", failure),
        "Refused": _response("Why the request was refused, for a client that accepts problem documents", problem),
        "Unavailable": _response("Why something outside failed, for a client that accepts problem documents", problem),
        "Unauthenticated": _response("The request has no valid token or login session", failure | problem),
        "TooLarge": _response(f"The body has more than {MAX_BODY} bytes", failure | problem),
        "Unchanged": _response("The client has it already", {}, "ETag"),
    }


def _response(description: str, content: Schema, *headers: str) -> Schema:
    names = (REQUEST_ID, STALE_SINCE, *headers)
    described = {"description": description, "headers": {name: _ref("headers", name) for name in names}}
    return described | ({"content": content} if content else {})


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


# Operations


def _operation(route: Route, schemas: _Schemas) -> Schema:
    summary = re.split(r"(?<=[.!?])\s(?=[A-Z`])", route.doc, maxsplit=1)[0].rstrip(".").replace("`", "")
    operation: Schema = {"operationId": _identity(route), "tags": [route.tag], "summary": summary}
    if route.doc.rstrip(".") != summary:
        operation["description"] = route.doc
    paths = [each for each in route.parameters if each.place is Place.PATH]
    others = [each for each in route.parameters if each.place is not Place.PATH]
    in_body = bool(others) and route.method in ("POST", "PUT")
    parameters = [_parameter(each, schemas) for each in (paths if in_body else paths + others)]
    if parameters:
        operation["parameters"] = parameters
    if in_body:
        operation["requestBody"] = _body(others, schemas)
    if route.operations:
        operation["x-pvc-operations"] = list(route.operations)
    operation["responses"] = _responses(route, schemas, in_body)
    operation["security"] = [] if route.public else [{name: []} for name in SECURITY_SCHEMES]
    return operation


def _identity(route: Route) -> str:
    """Return an id such as `get_vm_by_vm_state`, which changes only with the method and the path."""
    path = route.path.removeprefix("/api/v1") or "/api"
    return re.sub(r"\W+", "_", route.method.lower() + path.replace("{", "by_")).rstrip("_")


def _parameter(parameter: Parameter, schemas: _Schemas) -> Schema:
    in_path = parameter.place is Place.PATH
    described: Schema = {
        "name": parameter.key if in_path else parameter.name,
        "in": "path" if in_path else "query",
        "description": parameter.doc,
        "required": parameter.required,
        "schema": schemas.text(parameter),
    }
    return described | ({"allowEmptyValue": True} if parameter.place is Place.FLAG else {})


def _body(arguments: list[Parameter], schemas: _Schemas) -> Schema:
    """Describe the arguments as a form and as JSON; the one large argument also as the raw body."""
    description = "The arguments; they may be in the query string as well."
    form = {"schema": _object(arguments, schemas.text)}
    content: Schema = {kind: form for kind in FORMS} | {JSON: {"schema": _object(arguments, schemas.json)}}
    large = [each for each in arguments if each.place is Place.DOCUMENT]
    if large and not any(each.required for each in arguments if each not in large):
        name = large[0].name
        content |= {
            kind: {"schema": {"type": "string", "minLength": 1, "description": large[0].doc}} for kind in _raw(large[0])
        }
        description += f" `{name}` may be a file of a multipart form, or the body itself."
    return {"description": description, "required": any(each.required for each in arguments), "content": content}


def _object(arguments: list[Parameter], schema: Callable[[Parameter], Schema]) -> Schema:
    described: Schema = {
        "type": "object",
        "properties": {each.name: {"description": each.doc} | schema(each) for each in arguments},
        "additionalProperties": False,
    }
    required = [each.name for each in arguments if each.required]
    return described | ({"required": required} if required else {})


def _raw(document: Parameter) -> tuple[str, ...]:
    """Return the content types of a body that is the one large argument."""
    return RAW if document.name == "xml" else RAW[1:]


def _responses(route: Route, schemas: _Schemas, in_body: bool) -> Schema:
    content = {kind: {"schema": schemas.of((route, kind))} for kind in contents(route.returns)}
    tagged = route.method == "GET" and route.status == HTTPStatus.OK and not {Text, Stream} & {*_bare(route.returns)}
    responses = {str(route.status): _response("Success", content, *(("ETag",) if tagged else ()))}
    named = {"304": "Unchanged"} if tagged else {}
    named |= {} if route.public and route.method == "GET" else {"401": "Unauthenticated"}  # a login is public
    named |= {"413": "TooLarge"} if in_body else {}
    named |= {"4XX": "Refused", str(Failed.status): "Unavailable", str(PvcdError.usual_status): "Failed"}
    return responses | {status: _ref("responses", name) for status, name in named.items()}


# Schemas


def contents(returns: Any) -> dict[str, Any]:
    """Return the content types of a return annotation, each with its type."""
    found: dict[str, Any] = {}
    for kind in _members(returns):
        names = [each.content_type for each in getattr(kind, "__metadata__", ()) if isinstance(each, Produces)]
        shown = str if names or kind is Text else kind
        for name in names or ["text/plain" if kind is Text else JSON]:
            found[name] = found[name] | shown if name in found else shown
    return found


def _members(hint: Any) -> Iterator[Any]:
    """Yield the members of a union, without `Encoded`."""
    if get_origin(hint) in (Union, UnionType):
        for member in get_args(hint):
            yield from _members(member)
    elif get_origin(hint) is Encoded:
        yield from _members(get_args(hint)[0])
    else:
        yield Any if hint is Encoded else hint


def _bare(hint: Any) -> list[Any]:
    return [get_args(each)[0] if get_origin(each) is Annotated else each for each in _members(hint)]


class _Generator(GenerateJsonSchema):
    """Describes a type without a schema as anything, where pydantic would fail."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        """Return the schema of anything."""
        return {}


class _Schemas:
    """The schemas of all arguments and replies, generated together, so that shared parts are described once."""

    def __init__(self, routes: Iterable[Route]) -> None:
        wanted: list[tuple[Any, JsonSchemaMode, TypeAdapter[Any]]] = []
        for route in routes:
            wanted += [(each, "validation", each.adapter) for each in route.parameters if not each.choices]
            wanted += [
                ((route, name), "serialization", TypeAdapter(kind)) for name, kind in contents(route.returns).items()
            ]
        wanted += [(model, "serialization", TypeAdapter(model)) for model in (Failure, Problem)]
        made, definitions = TypeAdapter.json_schemas(
            wanted, ref_template="#/components/schemas/{model}", schema_generator=_Generator
        )
        self._made: dict[Any, Schema] = {key: schema for (key, _), schema in made.items()}
        self.components: Schema = definitions.get("$defs", {})

    def of(self, key: Any) -> Schema:
        """Return the schema of a reply."""
        return self._made[key]

    def text(self, parameter: Parameter) -> Schema:
        """Return the schema of an argument in the path, a query or a form."""
        schema = self._item(parameter)
        if parameter.repeated:
            schema = {"type": "array", "items": schema} | ({"minItems": 1} if parameter.required else {})
        elif parameter.separator is not None:
            schema = _joined(schema, parameter.separator)
        return schema | _default(parameter, parameter.separator)

    def json(self, parameter: Parameter) -> Schema:
        """Return the schema of an argument in JSON, where null means that it is not given."""
        schema = self._item(parameter)
        if parameter.many:
            schema = {"type": "array", "items": schema}
        return (schema if parameter.required else {"anyOf": [schema, {"type": "null"}]}) | _default(parameter)

    def _item(self, parameter: Parameter) -> Schema:
        """Return the schema of one value of an argument."""
        if parameter.place is Place.FLAG:
            return {"type": "boolean"}
        if parameter.choices:
            return {"type": "string", "enum": list(parameter.choices)}
        schema = _without_null(self._made[parameter])
        if parameter.many:
            schema = schema.get("items", {})
        if parameter.place is Place.PATH and schema.get("type") == "string":
            return {"pattern": SEGMENT, "maxLength": MAX_PATH_VALUE} | schema
        if parameter.secret:
            return {"type": "string", "format": "password"}
        if parameter.place is Place.VALUE and schema.get("type") == "string" and not schema.keys() & {"format", "enum"}:
            return {"pattern": TEXT} | schema
        return schema


def _joined(item: Schema, separator: str) -> Schema:
    """Return the schema of a list that is written as one text."""
    one = "|".join(map(re.escape, item.get("enum", ()))) or item.get("pattern", TEXT).removeprefix("^").removesuffix(
        "$"
    )
    several = f"^({one})({re.escape(separator)}({one}))*$"
    return {"type": "string", "pattern": TEXT if f"^{one}$" == TEXT else several}


def _default(parameter: Parameter, separator: str | None = None) -> Schema:
    if parameter.default is None:
        return {}
    default = to_jsonable_python(parameter.default)
    return {"default": default if separator is None else separator.join(map(str, default))}


def _without_null(schema: Schema) -> Schema:
    """Return a schema without its null."""
    others = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return others[0] if len(others) == 1 else {**schema, "anyOf": others} if others else schema
