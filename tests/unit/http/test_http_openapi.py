"""The OpenAPI document says of each route what its declaration says, and allows nothing that would be refused."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from pvcd.http.openapi import RAW, SEGMENT, TEXT, contents, document
from pvcd.http.parameters import Document, Flag, Path, Value, signature
from pvcd.http.replies import Encoded, Message, Produces, Text
from pvcd.http.routes import Routes
from pvcd.records import NAME_PATTERN, Name

FORM, MULTIPART, JSON = "application/x-www-form-urlencoded", "multipart/form-data", "application/json"
Thing = Annotated[str, Path("Which thing")]


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class View(BaseModel):
    """A thing as it is shown."""

    name: str
    colour: Colour
    parent: View | None = None


def operation(function: Any, method: str = "GET", path: str = "/api/v1/thing", **more: Any) -> Any:
    return described(function, method, path, **more)["paths"][path][method.lower()]


def described(function: Any, method: str = "GET", path: str = "/api/v1/thing", **more: Any) -> Any:
    routes = Routes(path, tag="Things")
    getattr(routes, method.lower())(**more)(function)
    return document(routes)


def schema_of(hint: Any, default: Any = ..., kind: str | None = None) -> Any:
    """How one argument is described: in a query, or in a body of this kind."""

    async def function(context: Any, argument: Any) -> Message:
        """Do it."""
        raise NotImplementedError

    function.__annotations__["argument"] = hint
    if default is not ...:
        function.__defaults__ = (default,)
    if kind is None:
        (parameter,) = operation(function)["parameters"]
        return parameter["schema"]
    properties = operation(function, "POST")["requestBody"]["content"][kind]["schema"]["properties"]
    return {key: value for key, value in properties["argument"].items() if key != "description"}


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Annotated[str, Value("")], {"type": "string", "pattern": TEXT}),
        (Annotated[str | None, Value("")], {"type": "string", "pattern": TEXT}),
        (Annotated[Name, Value("")], {"type": "string", "pattern": NAME_PATTERN, "maxLength": 128}),
        (Annotated[int | None, Field(ge=1, le=9), Value("")], {"type": "integer", "minimum": 1, "maximum": 9}),
        (Annotated[float, Value("")], {"type": "number"}),
        (Annotated[Colour, Value("")], {"type": "string", "enum": ["red", "blue"]}),
        (Annotated[Colour, Value("", choices=("blue",))], {"type": "string", "enum": ["blue"]}),
        (Annotated[Literal["a", "b"] | None, Value("")], {"type": "string", "enum": ["a", "b"]}),
        (Annotated[list[str], Value("", separator=",")], {"type": "string", "pattern": TEXT}),
        (
            Annotated[list[str] | None, Value("", repeated=True)],
            {"type": "array", "items": {"type": "string", "pattern": TEXT}},
        ),
        (Annotated[set[int], Value("", repeated=True)], {"type": "array", "items": {"type": "integer"}, "minItems": 1}),
        (Annotated[bool, Flag("")], {"type": "boolean", "default": False}),
    ],
)
def test_an_argument_is_described_by_its_type(hint: Any, expected: Any) -> None:
    assert schema_of(hint) == expected
    assert schema_of(hint, kind=FORM) == schema_of(hint, kind=MULTIPART) == expected


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (Annotated[list[Colour], Value("", separator=",")], ["red", "blue,red"], ["", "red,", "red,green", "redblue"]),
        (Annotated[list[Colour], Value("", separator="|")], ["red|blue"], ["red,blue"]),
        (Annotated[list[Name], Value("", separator=",")], ["a", "a,b.c"], ["", ".a", "a,-b"]),
    ],
)
def test_a_separated_list_is_described_by_its_items(hint: Any, good: list[str], bad: list[str]) -> None:
    pattern = schema_of(hint)["pattern"]
    assert [text for text in [*good, *bad] if re.search(pattern, text)] == good


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Annotated[int, Value("")], {"type": "integer"}),
        (Annotated[int | None, Value("")], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Annotated[bool, Flag("")], {"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": False}),
        (
            Annotated[list[Colour], Value("", separator=",")],
            {"type": "array", "items": {"type": "string", "enum": ["red", "blue"]}},
        ),
    ],
)
def test_json_has_lists_and_null_for_missing_values(hint: Any, expected: Any) -> None:
    assert schema_of(hint, kind=JSON) == expected


@pytest.mark.parametrize(
    ("hint", "default", "expected"),
    [
        (Annotated[int, Value("")], 100, 100),
        (Annotated[Colour, Value("")], Colour.RED, "red"),
        (Annotated[bool, Flag("")], True, True),
        (Annotated[tuple[str, ...] | None, Value("")], None, None),
        (Annotated[list[str], Value("", separator=",")], ["a", "b"], "a,b"),
        (Annotated[list[str], Value("", repeated=True)], ["a", "b"], ["a", "b"]),
    ],
)
def test_a_default_is_shown_as_users_write_it(hint: Any, default: Any, expected: Any) -> None:
    assert schema_of(hint, default).get("default") == expected


@pytest.mark.parametrize("text", ["a", "..a", "52:54:00:00:00:01", "ü", "a b"])
def test_possible_parts_of_a_path_match_the_schema(text: str) -> None:
    assert re.search(SEGMENT, text)


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a\0", "\x7f", "a\x85b"])
def test_impossible_parts_of_a_path_do_not_match_the_schema(text: str) -> None:
    assert not re.search(SEGMENT, text)


async def see(context: Any, thing: Thing, size: Annotated[int | None, Value("How large", name="the-size")]) -> View:
    """One `thing`, e.g. a red one. It is there.

    Nobody needs to know more.
    """
    raise NotImplementedError


async def change(
    context: Any,
    thing: Thing,
    xml: Annotated[str, Document("What it is")],
    force: Annotated[bool, Flag("At any price")] = False,
) -> Message:
    """Change a thing."""
    raise NotImplementedError


def test_arguments_of_a_get_or_delete_are_in_the_query() -> None:
    for method in ("GET", "DELETE"):
        found = operation(see, method, "/api/v1/thing/{thing}")
        assert "requestBody" not in found
        path, query = found["parameters"]
        assert (path["name"], path["in"], path["required"], path["description"]) == (
            "thing",
            "path",
            True,
            "Which thing",
        )
        assert path["schema"] == {"type": "string", "pattern": SEGMENT, "maxLength": 256}
        assert (query["name"], query["in"], query["required"]) == ("the-size", "query", False)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_arguments_of_a_post_or_put_are_a_body(method: str) -> None:
    found = operation(change, method, "/api/v1/thing/{thing}")
    assert [each["in"] for each in found["parameters"]] == ["path"]
    body = found["requestBody"]
    assert body["required"] is True
    assert list(body["content"]) == [FORM, MULTIPART, JSON, *RAW]
    for kind in (FORM, MULTIPART, JSON):
        schema = body["content"][kind]["schema"]
        assert (schema["type"], schema["required"], schema["additionalProperties"]) == ("object", ["xml"], False)
        assert list(schema["properties"]) == ["xml", "force"]
        assert schema["properties"]["xml"] == {"type": "string", "description": "What it is"}
    for kind in RAW:
        assert body["content"][kind]["schema"]["type"] == "string"


def test_a_raw_body_is_possible_only_without_other_required_arguments() -> None:
    async def function(context: Any, xml: Annotated[str, Document("")], name: Annotated[str, Value("")]) -> Message:
        """Do it."""
        raise NotImplementedError

    assert list(operation(function, "POST")["requestBody"]["content"]) == [FORM, MULTIPART, JSON]


def test_a_post_without_arguments_has_no_body() -> None:
    async def function(context: Any, thing: Thing) -> Message:
        """Do it."""
        raise NotImplementedError

    found = operation(function, "POST", "/api/v1/thing/{thing}")
    assert "requestBody" not in found
    assert "413" not in found["responses"]


def test_a_body_of_optional_arguments_is_optional() -> None:
    async def function(context: Any, force: Annotated[bool, Flag("")]) -> Message:
        """Do it."""
        raise NotImplementedError

    body = operation(function, "POST")["requestBody"]
    assert body["required"] is False
    assert "required" not in body["content"][FORM]["schema"]


def test_the_docstring_is_summary_and_description() -> None:
    found = operation(see, path="/api/v1/thing/{thing}")
    assert found["summary"] == "One thing, e.g. a red one"
    assert found["description"] == "One `thing`, e.g. a red one. It is there."
    assert "description" not in operation(change, "PUT", "/api/v1/thing/{thing}")
    assert found["tags"] == ["Things"]


@pytest.mark.parametrize(
    ("method", "path", "identity"),
    [
        ("GET", "/api/v1", "get_api"),
        ("GET", "/api/v1/vm", "get_vm"),
        ("PUT", "/api/v1/vm/{vm}", "put_vm_by_vm"),
        ("POST", "/api/v1/node/{node}/domain-state", "post_node_by_node_domain_state"),
        ("GET", "/api/v1/openapi.json", "get_openapi_json"),
    ],
)
def test_an_operation_is_identified_by_its_method_and_path(method: str, path: str, identity: str) -> None:
    source = "async def function(context" + "".join(f", {key}: Thing" for key in re.findall(r"{(\w+)}", path))
    names: dict[str, Any] = {"Thing": Thing, "Message": Message}
    exec(f"{source}) -> Message:\n    'Do it.'", names)
    assert operation(names["function"], method, path)["operationId"] == identity


def test_replies_are_described_by_the_return_annotation() -> None:
    found = described(see, path="/api/v1/thing/{thing}")
    replies = found["paths"]["/api/v1/thing/{thing}"]["get"]["responses"]
    assert list(replies) == ["200", "304", "401", "4XX", "503", "510"]
    assert replies["200"]["content"] == {JSON: {"schema": {"$ref": "#/components/schemas/View"}}}
    assert list(replies["200"]["headers"]) == ["X-Request-Id", "X-PVC-Stale-Since", "ETag"]
    assert found["components"]["schemas"]["View"]["description"] == "A thing as it is shown."
    assert set(found["components"]["schemas"]) == {"View", "Colour", "Failure", "Problem"}


def test_a_reply_has_the_declared_status() -> None:
    assert "209" in operation(change, "POST", "/api/v1/thing/{thing}", status=209)["responses"]


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Encoded[list[View]], {JSON: list[View]}),
        (Encoded, {JSON: Any}),
        (Encoded[Annotated[str, Produces("text/css")]], {"text/css": str}),
        (Annotated[Text, Produces("application/xml")], {"application/xml": str}),
        (Text, {"text/plain": str}),
        (Message | Annotated[Text, Produces("text/html")], {JSON: Message, "text/html": str}),
        (list[str] | Message, {JSON: list[str] | Message}),
        (Annotated[list[str], "words"], {JSON: Annotated[list[str], "words"]}),
    ],
)
def test_the_content_types_of_replies(hint: Any, expected: Any) -> None:
    async def function(context: Any) -> None:
        raise NotImplementedError

    assert contents(hint) == expected
    function.__annotations__["return"] = hint
    assert contents(signature(function)[1]) == expected


def test_a_type_without_a_schema_may_be_anything() -> None:
    class Strange:
        @classmethod
        def __get_pydantic_core_schema__(cls, *_: Any) -> Any:
            from pydantic_core import core_schema

            return core_schema.no_info_plain_validator_function(cls)

    assert schema_of(Annotated[Strange, Value("")]) == {}


def test_only_public_routes_need_no_token() -> None:
    closed = operation(see, path="/api/v1/thing/{thing}")
    assert closed["security"] == [{"token": []}, {"session": []}]
    opened = operation(see, path="/api/v1/thing/{thing}", public=True)
    assert opened["security"] == []
    assert "401" not in opened["responses"]


def test_routes_are_sorted_by_path() -> None:
    one, other = Routes("/api/v1/b", tag="B"), Routes("/api/v1/a", tag="A")
    for routes in (one, other):
        routes.put("/{thing}")(change)
        routes.get("/{thing}")(see)
    found = document([*one, *other])
    assert list(found["paths"]) == ["/api/v1/a/{thing}", "/api/v1/b/{thing}"]
    assert [list(methods) for methods in found["paths"].values()] == [["get", "put"], ["get", "put"]]
    assert found["tags"] == [{"name": "A"}, {"name": "B"}]
    assert found == document([*other, *one])
