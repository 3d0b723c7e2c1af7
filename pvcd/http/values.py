"""Merge the query, a form, a JSON body or a document into typed arguments, or refuse them with a sentence each."""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError
from pydantic import ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from pvcd.errors import Invalid, did_you_mean, wrong_value
from pvcd.http.parameters import Parameter, Place
from pvcd.records import NAME_PATTERN

BODY_SECONDS = 60.0
"""Time for a body to arrive."""
LARGE_BODY_BYTES = 64 * 1024
"""A larger body is decoded in a thread."""
MAX_PATH_VALUE = 256
MAX_FIELDS = 1000
"""Fields of a query or a form, and items of a list."""
MAX_COMPLAINTS = 10
"""More would not help, and each takes time."""

ON = frozenset({"", "true", "yes", "on", "1", "y", "t"})
OFF = frozenset({"false", "no", "off", "0", "n", "f"})

_FORM = "application/x-www-form-urlencoded"
_RAW = frozenset({"application/xml", "application/octet-stream"})
_CHARSETS = frozenset({"utf-8", "ascii", "iso8859-1", "cp1252"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_FORMATS = {
    "uuid": "a UUID",
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "ipv4network": "an IPv4 network",
    "ipv6network": "an IPv6 network",
    "ipvanyaddress": "an IP address",
    "ipvanynetwork": "an IP network",
}
_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
    "minLength": "at least",
    "maxLength": "at most",
}


class Bare(str):
    """A number, true or false of a JSON body as text; no valid value of a text argument."""


Given = str | list[str] | None
"""One value as it was sent; null of JSON means that nothing was given."""
Pairs = list[tuple[str, Given]]
"""All values of one place."""


async def read_arguments(request: web.Request, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the arguments by the keys of the function's parameters. Raises `Invalid` with all mistakes."""
    places = [_query(request), await _body(request, parameters)]
    complaints = list(islice(_unknown(places, parameters), MAX_COMPLAINTS))
    missing = []
    arguments: dict[str, Any] = {}
    for parameter in parameters:
        try:
            if parameter.place == "path":
                arguments[parameter.key] = _path_value(parameter, request.match_info[parameter.key])
            elif given := list(_given(parameter, places)):
                arguments[parameter.key] = _agreed(parameter, given)
            elif parameter.required:
                missing.append(parameter.name)
            else:
                arguments[parameter.key] = parameter.default
        except Invalid as error:
            complaints.append(error.sentence)
    if missing:
        complaints.append(_missing(missing))
    if complaints:
        raise Invalid(" ".join(complaints))
    return arguments


def document_of(parameters: Iterable[Parameter]) -> Parameter | None:
    """Return the one large argument, or None."""
    return next((each for each in parameters if each.place is Place.DOCUMENT), None)


def shown(text: str) -> str:
    """Quote a user's text for a sentence: shortened, and without control characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


# Gathering


def _query(request: web.Request) -> Pairs:
    return _form("query", request.rel_url.raw_query_string, "utf-8")


async def _body(request: web.Request, parameters: Sequence[Parameter]) -> Pairs:
    """Return the arguments in the body; none for an empty one of any type."""
    if not request.body_exists:
        return []
    kind, charset = _kind(request)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            if kind == "multipart/form-data":
                return await _multipart(request, parameters)
            data = await request.read()
    except TimeoutError:
        raise Invalid(f"The body must arrive within {BODY_SECONDS:g} s.") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Invalid("Cannot read the body: damaged or incomplete.") from None
    if not data:
        return []
    what = kind, data, charset, parameters
    return await asyncio.to_thread(_read_body, *what) if len(data) > LARGE_BODY_BYTES else _read_body(*what)


def _read_body(kind: str, data: bytes, charset: str, parameters: Sequence[Parameter]) -> Pairs:
    text = _decode(data, charset)
    document = document_of(parameters)
    if kind == "application/json":
        return _json(text)
    if kind == _FORM and (document is None or _begins_with_argument(text, parameters)):
        return _form("form", text.rstrip("\r\n"), charset)
    if document is not None and (kind == _FORM or kind in _RAW or kind.startswith("text/")):
        return [(document.name, text)]
    raise Invalid(f"The body must be a form or JSON; got the type {shown(kind)}.")


def _begins_with_argument(text: str, parameters: Sequence[Parameter]) -> bool:
    """Tell a form from a document that was sent as one, as curl does with every body."""
    first = re.split("[=&\r\n]", text, maxsplit=1)[0]
    return any(first == parameter.name for parameter in parameters if parameter.place != "path")


def _decode(data: bytes, charset: str) -> str:
    try:
        known = codecs.lookup(charset).name in _CHARSETS
    except (LookupError, ValueError):
        known = False
    if not known:
        raise Invalid(f"The charset must be utf-8; got {shown(charset)}.")
    try:
        return data.decode(charset)
    except UnicodeDecodeError as error:
        raise Invalid(f"The body must be valid {charset}: byte {error.start} is not.") from None


def _form(place: str, text: str, charset: str) -> Pairs:
    try:
        return list(
            parse_qsl(text, keep_blank_values=True, encoding=charset, errors="strict", max_num_fields=MAX_FIELDS)
        )
    except UnicodeDecodeError:
        raise Invalid(f"The {place} must be valid {charset}.") from None
    except ValueError:
        raise Invalid(f"The {place} must have at most {MAX_FIELDS} fields.") from None


def _kind(request: web.Request) -> tuple[str, str]:
    """Return the type and charset of the body. The parser of the standard library fails on some malformed ones."""
    try:
        return request.content_type, request.charset or "utf-8"
    except (LookupError, ValueError):
        raise Invalid("Cannot read the body: malformed Content-Type.") from None


async def _multipart(request: web.Request, parameters: Sequence[Parameter]) -> Pairs:
    """Return the fields of a multipart form; the document may be a file."""
    fields: Pairs = []
    document = document_of(parameters)
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise Invalid("Each part of a multipart body must be a field with a name.")
            data = bytes(await part.read(decode=True))
            if request.content.total_bytes > request.client_max_size:
                raise web.HTTPRequestEntityTooLarge(request.client_max_size)
            if len(fields) == MAX_FIELDS:
                raise Invalid(f"The form must have at most {MAX_FIELDS} fields.")
            if part.filename and (document is None or part.name != document.name):
                raise Invalid(f"The argument {shown(part.name)} cannot be a file.")
            fields.append((part.name, _decode(data, part.get_charset("utf-8"))))
    except (ValueError, LookupError, RuntimeError, AssertionError, HttpProcessingError):
        # aiohttp's reader raises each of these for a malformed body.
        raise Invalid("Cannot read the body: malformed multipart form.") from None
    return fields


def _json(text: str) -> Pairs:
    """Return the members of a JSON object, numbers as they are written."""
    try:
        document = json.loads(
            text, object_pairs_hook=tuple, parse_int=Bare, parse_float=Bare, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise Invalid(f"The body must be valid JSON: {error}.") from None
    if not isinstance(document, tuple):
        raise Invalid("The JSON body must be an object of arguments and their values.")
    return [(name, _json_value(name, value)) for name, value in document]


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not a number")


def _json_value(name: str, value: object) -> Given:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return Bare(str(value).lower())
    if isinstance(value, list) and all(isinstance(item, str | bool) for item in value):
        return [item if isinstance(item, str) else Bare(str(item).lower()) for item in value]
    raise Invalid(f"{shown(name)} in the JSON body must be text, a number, true, false or a list of these.")


# Merging


def _given(parameter: Parameter, places: Iterable[Pairs]) -> Iterator[str | list[str]]:
    """Yield the values of an argument from each place; a repeated one as one list for each place."""
    for pairs in places:
        values = [value for name, value in pairs if name == parameter.name and value is not None]
        if parameter.repeated and values:
            yield [item for value in values for item in ([value] if isinstance(value, str) else value)]
        else:
            yield from values


def _agreed(parameter: Parameter, given: list[str | list[str]]) -> Any:
    """Return the value on which all places agree."""
    value, *others = (_convert(parameter, each) for each in given)
    if any(other != value for other in others):
        raise Invalid(f"{parameter.name} must be given once, or with the same value each time.")
    return value


def _unknown(places: Iterable[Pairs], parameters: Sequence[Parameter]) -> Iterator[str]:
    valid = [parameter.name for parameter in parameters if parameter.place != "path"]
    for name in dict.fromkeys(name for pairs in places for name, _ in pairs):
        if name not in valid:
            yield f"There is no argument {shown(name)} here: {did_you_mean(name[:60], valid)}"


def _missing(names: list[str]) -> str:
    if len(names) == 1:
        return f"The argument {names[0]!r} is missing."
    *most, last = map(repr, names)
    return f"The arguments {', '.join(most)} and {last} are missing."


# Converting


def _path_value(parameter: Parameter, text: str) -> Any:
    if len(text) > MAX_PATH_VALUE:
        raise Invalid(_wrong(parameter, text, f"must have at most {MAX_PATH_VALUE} characters"))
    return _convert(parameter, text)


def _shown(parameter: Parameter, text: str) -> str:
    """Quote a value for a sentence, unless it is a secret."""
    return "(not shown)" if parameter.secret else shown(text)


def _refuse_characters(parameter: Parameter, text: str) -> None:
    """Refuse control characters except in documents, and surrogates everywhere."""
    if _SURROGATE.search(text):
        raise Invalid(_wrong(parameter, text, "must be valid UTF-8"))
    if parameter.place != "document" and _CONTROL.search(text):
        raise Invalid(_wrong(parameter, text, "must not contain a control character"))


def _convert(parameter: Parameter, given: str | list[str]) -> Any:
    """Return the typed value of what was given once."""
    if isinstance(given, list) and not parameter.many:
        raise Invalid(f"{parameter.name} must be one value; got a list.")
    texts = [given] if isinstance(given, str) else given
    for text in texts:
        _refuse_characters(parameter, text)
    if parameter.place == "flag":
        return _flag(parameter, texts[0])
    bare = next((text for text in texts if isinstance(text, Bare)), None)
    texts = _items(parameter, texts)
    if len(texts) > MAX_FIELDS:
        raise Invalid(f"{parameter.name} must have at most {MAX_FIELDS} items; got {len(texts)}.")
    if parameter.choices:
        wrong = (text for text in texts if text not in parameter.choices)
        expected = f"must be one of {', '.join(parameter.choices)}"
        sentences = [_wrong(parameter, text, expected) for text in islice(wrong, MAX_COMPLAINTS)]
        if sentences:
            raise Invalid(" ".join(sentences))
    try:
        value = parameter.adapter.validate_python(texts if parameter.many else texts[0])
    except ValidationError as error:
        raise Invalid(" ".join(islice(_sentences(parameter, texts, error), MAX_COMPLAINTS))) from None
    if bare and any(isinstance(item, str) for item in (value if parameter.many else [value])):
        raise Invalid(f"{parameter.name} must be text; got the bare {_shown(parameter, bare)}.")
    return value


def _flag(parameter: Parameter, text: str) -> bool:
    word = text.lower()
    if word in ON or word in OFF:
        return word in ON
    raise Invalid(_wrong(parameter, text, "must be given alone, or as true or false"))


def _items(parameter: Parameter, texts: list[str]) -> list[str]:
    """Split what was given into items; in names, restore each `+`."""
    if parameter.separator is not None:
        # A name may end with the blank that stands for `+`, but never begin with it.
        pieces = (piece for text in texts for piece in text.split(parameter.separator))
        stripped = (piece.lstrip() if parameter.names else piece.strip() for piece in pieces)
        texts = [piece for piece in stripped if piece]
    return [text.replace(" ", "+") for text in texts] if parameter.names else texts


# Sentences


def _wrong(parameter: Parameter, text: str, reason: str) -> str:
    return wrong_value(parameter.name, _shown(parameter, text), reason)


def _sentences(parameter: Parameter, texts: list[str], error: ValidationError) -> Iterator[str]:
    """Yield a sentence for each item that pydantic refused, with its first reason, or for the list itself."""
    expected = _expected(parameter)
    seen: set[int] = set()
    for detail in error.errors(include_url=False, include_input=False):
        index = detail["loc"][0] if parameter.many and detail["loc"] else None
        if index is None and parameter.many:
            yield wrong_value(parameter.name, "this list", detail["msg"])
        elif (item := index if isinstance(index, int) else 0) not in seen:
            seen.add(item)
            yield _sentence(parameter, texts[item], detail, expected)


def _sentence(parameter: Parameter, text: str, detail: Any, expected: str | None) -> str:
    own = detail["type"] in ("value_error", "assertion_error")
    if expected and not own:
        return _wrong(parameter, text, f"must be {expected}")
    reason = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    return _wrong(parameter, text, reason)


def _expected(parameter: Parameter) -> str | None:
    """Describe the valid values, or return None if the type has no description."""
    try:
        return _phrase(parameter.adapter.json_schema())
    except PydanticInvalidForJsonSchema:
        return None


def _phrase(schema: dict[str, Any]) -> str | None:
    if "description" in schema:
        return str(schema["description"])
    if "anyOf" in schema:
        phrases = [_phrase(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(filter(None, phrases)) if all(phrases) else None
    if "items" in schema:
        return _phrase(schema["items"])
    if schema.get("type") == "boolean":
        return "true or false"
    bounds = " and ".join(f"{words} {schema[key]}" for key, words in _BOUNDS.items() if key in schema)
    if schema.get("type") in ("integer", "number"):
        number = "a whole number" if schema["type"] == "integer" else "a number"
        return f"{number} of {bounds}" if bounds else number
    return _text_phrase(schema, bounds)


def _text_phrase(schema: dict[str, Any], bounds: str) -> str | None:
    if schema.get("pattern") == NAME_PATTERN:
        length = f", {bounds} characters" if bounds else ""
        return f"a letter or digit, then letters, digits, '.', '_', '+' and '-'{length}"
    if bounds and "pattern" not in schema:
        return f"text of {bounds} characters"
    return _FORMATS.get(schema.get("format", ""))
