"""The sentences about arguments that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from pvcd.errors import wrong_value
from pvcd.http.parameters import Parameter
from pvcd.records import NAME_PATTERN

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


def shown(text: str) -> str:
    """Quote a user's text for a sentence: shortened, and without control characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def shown_value(parameter: Parameter, text: str) -> str:
    """Quote a value for a sentence, unless it is a secret."""
    return "(not shown)" if parameter.secret else shown(text)


def complaint(parameter: Parameter, text: str, reason: str) -> str:
    """Return the sentence about a value; `reason` is the rule that it breaks."""
    return wrong_value(parameter.name, shown_value(parameter, text), reason)


def sentences_about(parameter: Parameter, texts: list[str], error: ValidationError) -> Iterator[str]:
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
        return complaint(parameter, text, f"must be {expected}")
    reason = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    return complaint(parameter, text, reason)


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
