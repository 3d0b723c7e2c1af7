"""Sphinx directives that say what pvcd declares, so that it is written in one place: the code.

    {endpoint} POST /api/v1/vm       its sentence, its arguments and its reply; then what the page says besides
    {endpoints}                      the list of all endpoints
    {replies}                        what the fields of each reply are
    {operations}                     every operation: where it is done, and what its hooks are told
    {settings}                       every setting with its kind, default and meaning
    {grants}                         the grants of pvc.vm.host_access

The functions below return Markdown, whose sections are of the third level. The example file pvc-api.yaml loads all
plugins that are there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin

from docutils import nodes  # type: ignore[import-untyped]
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pvcd import Message, Produces, Section
from pvcd.http.parameters import Parameter
from pvcd.http.routes import Route
from pvcd.plugin.registry import Registry, start
from pvcd.records import NAME_PATTERN
from pvcd.settings import Settings, read_file
from pvcd_plugins.vm.grants import GRANTS

EXAMPLE = Path(__file__).parents[2] / "pvc-api.yaml"
WORDS = {
    "array": "list of",
    "boolean": "true or false",
    "integer": "whole number",
    "string": "text",
    "uuid": "UUID",
    "ipvanyaddress": "IP address",
    "path": "path",
}
PLACES = {"path": "part of the path", "flag": "flag", "document": "document"}


@cache
def declared() -> tuple[type[Settings], Registry]:
    """The settings with the sections of all plugins, and all that is declared."""
    settings, registry = start(read_file(EXAMPLE))
    return type(settings), registry


def routes() -> dict[str, Route]:
    """Every endpoint by its name, such as `GET /api/v1/vm`."""
    return {route.name: route for route in declared()[1].routes}


# Words


def kind(schema: dict[str, Any]) -> str:
    """What a value may be, from its JSON schema, in words."""
    if "$ref" in schema:
        return code(schema["$ref"].rsplit("/", 1)[-1])
    if "anyOf" in schema:
        return " or ".join(kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(code, schema["enum"]))
    word = WORDS.get(schema.get("format", "")) or WORDS.get(schema["type"], schema["type"])
    items = f" {kind(schema['items'])}" if "items" in schema else ""
    return word + items + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    if schema.get("pattern") == NAME_PATTERN:
        return ": a name"
    words = {
        "exclusiveMinimum": "more than {}",
        "minimum": "at least {}",
        "minItems": "at least {}",
        "maximum": "at most {}",
        "maxLength": "at most {} characters",
        "pattern": "of the form `{}`",
    }
    said = [text.format(schema[key]).replace("|", "\\|") for key, text in words.items() if key in schema]
    return ", " + ", ".join(said) if said else ""


def code(text: object) -> str:
    """A literal."""
    return f"`{text}`"


def table(*rows: Iterable[str]) -> str:
    """A Markdown table, of which the first row is the heading."""
    head, *body = [f"| {' | '.join(' '.join(cell.split()) for cell in row)} |" for row in rows]
    return "\n".join([head, "|---" * (head.count(" | ") + 1) + "|", *body])


# Endpoints


def anchor(name: str) -> str:
    """The target of a section, by its heading."""
    return str(nodes.make_id(name))


def endpoint(route: Route) -> str:
    """An endpoint: what it does, what it takes and what it answers."""
    everybody = " Open to everybody, also while authentication is enabled." if route.public else ""
    parts = [f"### `{route.name}`", route.doc + everybody]
    if route.parameters:
        parts.append(table(("argument", "", "meaning"), *map(_argument, route.parameters)))
    if reply := _reply(route.returns):
        status = f" with the status {route.status}" if route.status != 200 else ""
        parts.append(f"Answers {reply}{status}.")
    return "\n\n".join(parts)


def _argument(parameter: Parameter) -> tuple[str, str, str]:
    what = PLACES.get(parameter.place) or _value(parameter)
    if parameter.required and parameter.place != "path":
        what += ", required"
    if parameter.default not in (None, False):
        what += f", by default {code(parameter.default)}"
    return code(parameter.name), what, f"{parameter.doc}."


def _value(parameter: Parameter) -> str:
    if parameter.choices:
        return "one of " + ", ".join(map(code, parameter.choices))
    schema = parameter.adapter.json_schema()
    shown = next((each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"), schema)
    return kind(shown)


def _reply(returns: Any) -> str:
    """What is answered, with a link to its fields."""
    if returns is Message:
        return "a message"
    if get_origin(returns) in (Union, UnionType):
        return " or ".join(filter(None, map(_reply, get_args(returns))))
    kinds = [each.content_type for each in _metadata(returns) if isinstance(each, Produces)]
    if kinds:
        return code(kinds[0])
    found = next(models_in(returns), None)
    if found is None:
        return "a JSON object" if "dict[" in str(returns) else ""
    link = f"[{found.__name__}](#{anchor(found.__name__)})"
    return f"a list of {link}" if "list[" in str(returns) else link


def _metadata(hint: Any) -> Iterator[Any]:
    """All that is annotated anywhere in a type."""
    yield from getattr(hint, "__metadata__", ())
    for part in get_args(hint):
        yield from _metadata(part)


def endpoints() -> str:
    """The list of all endpoints, by chapter."""
    rows = [(f"[{code(name)}](#{anchor(name)})", route.doc) for name, route in sorted(routes().items(), key=_order)]
    return table(("endpoint", ""), *rows)


def _order(item: tuple[str, Route]) -> tuple[str, str, int]:
    _, route = item
    return route.tag, route.path, ("GET", "POST", "PUT", "DELETE").index(route.method)


# Replies


def models_in(hint: Any) -> Iterator[type[BaseModel]]:
    """The models in a type, the outermost first."""
    if isinstance(hint, type) and get_origin(hint) is None:
        if issubclass(hint, BaseModel):
            yield hint
        return
    for part in get_args(hint):
        yield from models_in(part)


def replies() -> str:
    """Each model that is answered, with its fields."""
    found: dict[str, type[BaseModel]] = {}
    for route in routes().values():
        for model in models_in(route.returns):
            if model is not Message:
                found[model.__name__] = model
    return "\n\n".join(
        f"### {name}\n\n{' '.join((model.__doc__ or '').split())}\n\n" + table(("field", ""), *_fields(model))
        for name, model in sorted(found.items())
    )


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The fields of a model, those of the models in it with their full names."""
    for name, field in model.model_fields.items():
        inner = next(models_in(field.annotation), None)
        many = "[]" if get_origin(field.annotation) in (list, tuple) else ""
        if inner:
            yield from _fields(inner, f"{prefix}{name}{many}.")
        else:
            about = f". {field.description}" if field.description else ""
            yield code(prefix + name), _kind_of(field.annotation) + about


def _kind_of(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join("null" if each is NoneType else _kind_of(each) for each in get_args(annotation))
    schema = TypeAdapter(annotation).json_schema()
    return kind({key: value for key, value in schema.items() if key not in ("title", "description")})


# Operations


def operations() -> str:
    """Every operation with the arguments that its hooks are told."""
    rows = [
        (code(name), kind.doc, kind.place, ", ".join(kind.phases), ", ".join(map(code, kind.arguments)))
        for name, kind in declared()[1].known_operations.items()
    ]
    return table(("operation", "", "place", "phases", "arguments"), *rows)


# Settings


def settings() -> str:
    """Every setting, section by section."""
    model = declared()[0]
    return "\n\n".join(_section(model, "pvc"))


def _section(model: type[BaseModel], path: str) -> Iterator[str]:
    schema = model.model_json_schema()["properties"]
    about = (inspect.getdoc(model) or "").partition(": ")[2]
    inner = {name: section for name, field in model.model_fields.items() if (section := section_of(field))}
    rows = [
        (code(name), _what(field, schema[name]), _default(field), field.description or "")
        for name, field in model.model_fields.items()
        if name not in inner or many(field)
    ]
    yield f"### `{path}`\n\n{about[:1].upper()}{about[1:]}."
    if rows:
        yield table(("setting", "kind", "default", "meaning"), *rows)
    for name, section in inner.items():
        yield from _section(section, f"{path}.{name}" + ("[]" if many(model.model_fields[name]) else ""))


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field is, or is a list of."""
    candidates = (field.annotation, *get_args(field.annotation))
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, Section)), None)


def many(field: FieldInfo) -> bool:
    """Whether a field is a list."""
    return get_origin(field.annotation) is tuple


def _what(field: FieldInfo, schema: dict[str, Any]) -> str:
    what = "list of sections" if section_of(field) else kind(schema)
    return f"{what}; a secret, never shown" if not field.repr else what


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default is PydanticUndefined:
        return ""
    value = field.default
    if isinstance(value, tuple | frozenset):
        return code(f"[{', '.join(map(str, value))}]")
    if value is None:
        return code("null")
    return code(f'"{value}"' if value == "" else f"{value:g}" if isinstance(value, float) else value)


# Grants


def grants() -> str:
    """Every grant of pvc.vm.host_access with its meaning."""
    return table(("grant", "opens"), *((code(name), grant.meaning) for name, grant in GRANTS.items()))


# Sphinx


class Generated(SphinxDirective):
    """Markdown that is made when the page is read."""

    write: ClassVar[Callable[[], str]]

    def run(self) -> list[nodes.Node]:
        """Put it in the place of the directive."""
        self.env.note_reread()  # the code may have changed, though the page did not
        return self.parse_text_to_nodes(type(self).write(), allow_section_headings=True)


class Endpoint(SphinxDirective):
    """One endpoint; the content stands below what is generated."""

    required_arguments = 2
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Put it in the place of the directive."""
        route = routes().get(" ".join(self.arguments))
        if route is None:
            raise self.error(f"there is no endpoint {' '.join(self.arguments)}")
        self.env.note_reread()
        text = endpoint(route) + "\n\n" + "\n".join(self.content)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("endpoint", Endpoint)
    for write in (endpoints, grants, operations, replies, settings):
        app.add_directive(write.__name__, type(write.__name__, (Generated,), {"write": staticmethod(write)}))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
