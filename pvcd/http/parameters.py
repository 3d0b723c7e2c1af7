"""The arguments of a route: markers in annotations, and the parameters derived from a function's signature."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter

from pvcd.http.replies import Encoded


class Place(StrEnum):
    """The place of an argument in a request."""

    PATH = "path"
    VALUE = "value"
    FLAG = "flag"
    DOCUMENT = "document"


@dataclass(frozen=True, kw_only=True)
class Marker:
    """The description of an argument, beside its type; use one of the classes below."""

    doc: str = field(kw_only=False)


@dataclass(frozen=True, kw_only=True)
class Path(Marker):
    """A part of the path. With `names` a blank in it is read as `+`, since names hold no blanks."""

    names: bool = True


@dataclass(frozen=True, kw_only=True)
class Value(Marker):
    """A value of the query, a form or a JSON body.

    A list is either one value that is split at the `separator`, or `repeated`: given once for each item. A `secret`
    is never shown in an error, and no site hook gets it; instead of a value with `redact` they get what that returns.
    """

    name: str | None = None
    choices: tuple[str, ...] = ()
    separator: str | None = None
    repeated: bool = False
    names: bool = False
    secret: bool = False
    redact: Callable[[Any], Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Flag(Marker):
    """An option that is on by its presence, and off unless the function's default says otherwise."""

    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Document(Marker):
    """The one large argument: may also be the raw body or a file of a multipart form."""

    name: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Parameter:
    """One argument of a route, as conversion, the API document and the command line need it."""

    name: str
    """The name for users."""
    key: str
    """The name of the function's parameter."""
    place: Place
    doc: str
    type: Any
    """The annotation without the marker, with the constraints of pydantic."""
    adapter: TypeAdapter[Any]
    required: bool
    default: Any = None
    choices: tuple[str, ...] = ()
    separator: str | None = None
    repeated: bool = False
    names: bool = False
    secret: bool = False
    redact: Callable[[Any], Any] | None = None

    @property
    def many(self) -> bool:
        """True for a list."""
        return self.repeated or self.separator is not None

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the value that the function gets."""
        schema: dict[str, Any] = {"type": "boolean"} if self.place is Place.FLAG else self._typed()
        if not self.required and self.default is None:
            schema = {"anyOf": [schema, {"type": "null"}]}
        return {"description": self.doc, **schema}

    def _typed(self) -> dict[str, Any]:
        if self.choices:
            one = {"type": "string", "enum": list(self.choices)}
            return {"type": "array", "items": one} if self.many else one
        schema = self.adapter.json_schema()
        while "anyOf" in schema:  # the caller adds None
            schema = next(each for each in schema["anyOf"] if each.get("type") != "null")
        return {key: value for key, value in schema.items() if key not in ("title", "$defs")}


def signature(function: Callable[..., Any]) -> tuple[tuple[Parameter, ...], Any]:
    """Return the parameters after the context and the return type; of an `Encoded`, the type inside."""
    declared = list(inspect.signature(function).parameters.values())
    if not declared:
        raise TypeError("its first parameter must be the context")
    # Without the context's type, whose import may be for type checkers only.
    written = {key: hint for key, hint in function.__annotations__.items() if key != declared[0].name}
    names = function.__globals__
    hints = get_type_hints(SimpleNamespace(__annotations__=written), globalns=names, include_extras=True)
    if "return" not in hints:
        raise TypeError("it has no return annotation")
    returns = hints["return"]
    if get_origin(returns) is Encoded:
        returns = get_args(returns)[0]
    return tuple(_parameter(each, hints.get(each.name)) for each in declared[1:]), returns


def _parameter(declared: inspect.Parameter, hint: Any) -> Parameter:
    marker, kind = _unwrap(hint)
    if marker is None:
        raise TypeError(f"its parameter {declared.name!r} has no Path, Value, Flag or Document")
    bare, optional = _bare(kind)
    default: Any = False if isinstance(marker, Flag) else None
    if declared.default is not inspect.Parameter.empty:
        default = declared.default
        required = False
    else:
        required = not (optional or isinstance(marker, Flag))
    parameter = Parameter(
        name=getattr(marker, "name", None) or declared.name,
        key=declared.name,
        place=Place(type(marker).__name__.lower()),
        doc=marker.doc,
        type=kind,
        adapter=TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)),
        required=required,
        default=default,
        choices=getattr(marker, "choices", ()) or _choices(bare),
        separator=getattr(marker, "separator", None),
        repeated=getattr(marker, "repeated", False),
        names=getattr(marker, "names", False),
        secret=getattr(marker, "secret", False),
        redact=getattr(marker, "redact", None),
    )
    _check_type(parameter, bare)
    return parameter


def _unwrap(hint: Any) -> tuple[Marker | None, Any]:
    """Split an annotation into its marker and the type without it; `Marked | None` is marked as well."""
    if get_origin(hint) in (Union, UnionType):
        members = [_unwrap(member) for member in get_args(hint)]
        marker = next((marker for marker, _ in members if marker), None)
        return marker, functools.reduce(operator.or_, (kind for _, kind in members))
    if get_origin(hint) is not Annotated:
        return None, hint
    markers = [each for each in hint.__metadata__ if isinstance(each, Marker)]
    others = tuple(each for each in hint.__metadata__ if not isinstance(each, Marker))
    kind = Annotated[(hint.__origin__, *others)] if others else hint.__origin__
    return markers[0] if len(markers) == 1 else None, kind


def _bare(kind: Any) -> tuple[Any, bool]:
    """Return a type without constraints and None, and whether it admits None."""
    if get_origin(kind) is Annotated:
        return _bare(kind.__origin__)
    if get_origin(kind) in (Union, UnionType):
        members = [member for member in get_args(kind) if member is not NoneType]
        bare = _bare(members[0])[0] if len(members) == 1 else kind
        return bare, NoneType in get_args(kind)
    return kind, False


def _choices(bare: Any) -> tuple[str, ...]:
    """Return the choices of a Literal or Enum, or of the items of a list."""
    if get_origin(bare) in (list, set, frozenset):
        bare = _bare(get_args(bare)[0])[0]
    if get_origin(bare) is Literal:
        return tuple(map(str, get_args(bare)))
    if isinstance(bare, type) and issubclass(bare, Enum):
        return tuple(str(member.value) for member in bare)
    return ()


def _check_type(parameter: Parameter, bare: Any) -> None:
    """Raise `TypeError` for a type that the kind of argument cannot have."""
    fitting = {Place.PATH: str, Place.DOCUMENT: str, Place.FLAG: bool}.get(parameter.place, bare)
    if bare is not fitting:
        raise TypeError(f"its parameter {parameter.key!r} must be of the type {fitting.__name__}")
    is_list = (get_origin(bare) or bare) in (list, set, frozenset)
    if is_list != parameter.many:
        raise TypeError(
            f"its parameter {parameter.key!r} must be a list if, and only if, it has a separator or repeats"
        )
    for choice in parameter.choices:
        try:
            parameter.adapter.validate_python([choice] if parameter.many else choice)
        except ValueError as error:
            raise TypeError(f"its parameter {parameter.key!r} cannot be {choice!r}") from error
