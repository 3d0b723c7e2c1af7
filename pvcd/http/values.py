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

from pvcd.errors import Invalid, did_you_mean
from pvcd.http.complaints import complaint, sentences_about, shown, shown_value
from pvcd.http.parameters import Parameter, Place

BODY_SECONDS = 60.0
"""Time for a body to arrive."""
LARGE_BODY_BYTES = 64 * 1024
"""A larger body is decoded in a thread."""
MAX_PATH_VALUE = 256
MAX_FIELDS = 1000
"""Fields of a query, a form or a JSON body, where each item of a list is one; and items of a list."""
MAX_COMPLAINTS, MAX_SUGGESTIONS = 10, 3
"""More would not help, and each takes time."""

ON = frozenset({"", "true", "yes", "on", "1", "y", "t"})
OFF = frozenset({"false", "no", "off", "0", "n", "f"})

_FORM = "application/x-www-form-urlencoded"
_RAW = frozenset({"application/xml", "application/octet-stream"})
_CHARSETS = frozenset({"utf-8", "ascii", "iso8859-1", "cp1252"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_COMMA_OR_STRING = re.compile(r',|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_SURROGATE = re.compile(r"[\ud800-\udfff]")


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
    _refuse_many_fields(text)
    try:
        document = json.loads(
            text, object_pairs_hook=tuple, parse_int=Bare, parse_float=Bare, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise Invalid(f"The body must be valid JSON: {error}.") from None
    if not isinstance(document, tuple):
        raise Invalid("The JSON body must be an object of arguments and their values.")
    return [(name, _json_value(name, value)) for name, value in document]


def _refuse_many_fields(text: str) -> None:
    """Raise `Invalid` before the parser, which lets no other thread run, creates each of a million items."""
    if text.count(",") < MAX_FIELDS:
        return
    tokens = [match[0][0] for match in islice(_COMMA_OR_STRING.finditer(text), 3 * MAX_FIELDS)]
    if tokens.count(",") >= MAX_FIELDS or len(tokens) == 3 * MAX_FIELDS:  # a field has at most two strings
        raise Invalid(f"The JSON body must have at most {MAX_FIELDS} fields.")


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
    names = dict.fromkeys(name for pairs in places for name, _ in pairs)
    for count, name in enumerate(name for name in names if name not in valid):
        suggestion = f": {did_you_mean(name[:60], valid)}" if count < MAX_SUGGESTIONS else "."
        yield f"There is no argument {shown(name)} here{suggestion}"


def _missing(names: list[str]) -> str:
    if len(names) == 1:
        return f"The argument {names[0]!r} is missing."
    *most, last = map(repr, names)
    return f"The arguments {', '.join(most)} and {last} are missing."


# Converting


def _path_value(parameter: Parameter, text: str) -> Any:
    if len(text) > MAX_PATH_VALUE:
        raise Invalid(complaint(parameter, text, f"must have at most {MAX_PATH_VALUE} characters"))
    return _convert(parameter, text)


def _refuse_characters(parameter: Parameter, text: str) -> None:
    """Refuse control characters except in documents, and surrogates everywhere."""
    if _SURROGATE.search(text):
        raise Invalid(complaint(parameter, text, "must be valid UTF-8"))
    if parameter.place != "document" and _CONTROL.search(text):
        raise Invalid(complaint(parameter, text, "must not contain a control character"))


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
        sentences = [complaint(parameter, text, expected) for text in islice(wrong, MAX_COMPLAINTS)]
        if sentences:
            raise Invalid(" ".join(sentences))
    try:
        value = parameter.adapter.validate_python(texts if parameter.many else texts[0])
    except ValidationError as error:
        raise Invalid(" ".join(islice(sentences_about(parameter, texts, error), MAX_COMPLAINTS))) from None
    if bare and any(isinstance(item, str) for item in (value if parameter.many else [value])):
        raise Invalid(f"{parameter.name} must be text; got the bare {shown_value(parameter, bare)}.")
    return value


def _flag(parameter: Parameter, text: str) -> bool:
    word = text.lower()
    if word in ON or word in OFF:
        return word in ON
    raise Invalid(complaint(parameter, text, "must be given alone, or as true or false"))


def _items(parameter: Parameter, texts: list[str]) -> list[str]:
    """Split what was given into items; in names, restore each `+`."""
    if parameter.separator is not None:
        # A name may end with the blank that stands for `+`, but never begin with it.
        pieces = (piece for text in texts for piece in text.split(parameter.separator))
        stripped = (piece.lstrip() if parameter.names else piece.strip() for piece in pieces)
        texts = [piece for piece in stripped if piece]
    return [text.replace(" ", "+") for text in texts] if parameter.names else texts
