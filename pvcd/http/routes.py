"""Routes: a function with marked parameters, a docstring and a return type is an endpoint.

    VMName = Annotated[str, Path("Name or UUID of the VM")]
    Wanted = Annotated[State, Value("The state to go to", choices=("start", "stop"))]

    routes = Routes("/api/v1/vm", tag="Virtual machines")

    @routes.post("/{vm}/state", operation="vm-{state}")
    async def set_state(context: Context, vm: VMName, state: Wanted) -> Message:
        '''Set a VM to a state.'''

All is derived once, at the declaration; a mistake in it is a TypeError that names the function.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import operator
import re
import string
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from aiohttp import web
from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

from pvcd.http.replies import encode
from pvcd.http.values import read_arguments

_FIELD = re.compile(r"\{(\w+)\}")


class Place(StrEnum):
    """Where an argument comes from."""

    PATH = "path"
    VALUE = "value"
    FLAG = "flag"
    DOCUMENT = "document"


@dataclass(frozen=True, kw_only=True)
class Marker:
    """What is said of an argument beside its type; use one of the classes below."""

    doc: str = field(kw_only=False)


@dataclass(frozen=True, kw_only=True)
class Path(Marker):
    """A part of the path. With `names` a blank in it is read as `+`, since names hold no blanks."""

    names: bool = True


@dataclass(frozen=True, kw_only=True)
class Value(Marker):
    """A value of the query, a form or a JSON body.

    A list is either written in one value, cut at the `separator`, or `repeated`: given once for each item.
    """

    name: str | None = None
    choices: tuple[str, ...] = ()
    separator: str | None = None
    repeated: bool = False
    names: bool = False


@dataclass(frozen=True, kw_only=True)
class Flag(Marker):
    """An option that is on by its presence, and off unless the function's default says otherwise."""

    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Document(Marker):
    """The one large argument: may also be the raw body, or a file in a multipart form."""

    name: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Parameter:
    """One argument of a route: all that conversion, the API document and the command line need of it."""

    name: str
    """As users write it."""
    key: str
    """As the function calls it."""
    place: Place
    doc: str
    type: Any
    """Without the marker, but with any constraints of pydantic."""
    adapter: TypeAdapter[Any]
    required: bool
    default: Any = None
    choices: tuple[str, ...] = ()
    separator: str | None = None
    repeated: bool = False
    names: bool = False

    @property
    def many(self) -> bool:
        """Whether it is a list."""
        return self.repeated or self.separator is not None


@dataclass(frozen=True, eq=False, kw_only=True)
class Route:
    """An endpoint, as declared."""

    method: str
    path: str
    function: Callable[..., Awaitable[object]]
    parameters: tuple[Parameter, ...]
    returns: Any
    doc: str
    """The first paragraph of the docstring, in one line."""
    tag: str
    operation: str | None
    operations: tuple[str, ...]
    """Every name that `operation` can become."""
    status: int

    @property
    def name(self) -> str:
        """Such as `POST /api/v1/vm/{vm}/state`."""
        return f"{self.method} {self.path}"

    @property
    def document(self) -> Parameter | None:
        """The one large argument, if there is one."""
        return next((each for each in self.parameters if each.place is Place.DOCUMENT), None)

    def operation_for(self, arguments: Mapping[str, Any]) -> str | None:
        """The name of the operation that a request with these arguments is; None if it is none."""
        if self.operation is None:
            return None
        values = {key: arguments[key] for key in _template_fields(self.operation)}
        if None in values.values():
            return None
        return self.operation.format(
            **{key: value.value if isinstance(value, Enum) else value for key, value in values.items()}
        )


Function = TypeVar("Function", bound=Callable[..., Awaitable[object]])


class Routes:
    """The routes below one prefix, in the order of their declaration."""

    def __init__(self, prefix: str, tag: str) -> None:
        self.prefix = prefix
        self.tag = tag
        self._routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)

    def get(self, path: str = "", *, operation: str | None = None, status: int = 200) -> Callable[[Function], Function]:
        """Declare what a GET of this path does."""
        return self._declare("GET", path, operation, status)

    def post(
        self, path: str = "", *, operation: str | None = None, status: int = 200
    ) -> Callable[[Function], Function]:
        """Declare what a POST to this path does."""
        return self._declare("POST", path, operation, status)

    def put(self, path: str = "", *, operation: str | None = None, status: int = 200) -> Callable[[Function], Function]:
        """Declare what a PUT to this path does."""
        return self._declare("PUT", path, operation, status)

    def delete(
        self, path: str = "", *, operation: str | None = None, status: int = 200
    ) -> Callable[[Function], Function]:
        """Declare what a DELETE of this path does."""
        return self._declare("DELETE", path, operation, status)

    def _declare(self, method: str, path: str, operation: str | None, status: int) -> Callable[[Function], Function]:
        def declare(function: Function) -> Function:
            try:
                self._routes.append(
                    _route(
                        function,
                        method=method,
                        path=self.prefix + path,
                        tag=self.tag,
                        operation=operation,
                        status=status,
                    )
                )
            except (TypeError, NameError, PydanticUserError) as error:
                raise TypeError(f"{function.__module__}.{function.__qualname__}: {error}") from error
            return function

        return declare


Call = Callable[[web.Request, Route, dict[str, Any]], Awaitable[object]]


def register(app: web.Application, routes: Iterable[Route], call: Call) -> None:
    """Add routes to an app; `call` runs a route's function with the arguments of a request."""
    for route in routes:
        if route.method == "GET":
            app.router.add_get(route.path, _handler(route, call))  # answers HEAD as well
        else:
            app.router.add_route(route.method, route.path, _handler(route, call))


def _handler(route: Route, call: Call) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        arguments = await read_arguments(request, route)
        return encode(await call(request, route, arguments), route.status)

    return handle


def _route(
    function: Callable[..., Awaitable[object]],
    *,
    method: str,
    path: str,
    tag: str,
    operation: str | None,
    status: int,
) -> Route:
    """The route of a declaration; a TypeError says what is wrong with it."""
    if not inspect.iscoroutinefunction(function):
        raise TypeError("it must be an async function")
    doc = inspect.getdoc(function)
    if not doc:
        raise TypeError("it has no docstring")
    parameters, returns = _signature(function)
    _check(path, parameters)
    return Route(
        method=method,
        path=path,
        function=function,
        parameters=parameters,
        returns=returns,
        doc=" ".join(doc.split("\n\n")[0].split()),
        tag=tag,
        operation=operation,
        operations=_operations(operation, parameters),
        status=status,
    )


def _signature(function: Callable[..., Any]) -> tuple[tuple[Parameter, ...], Any]:
    """The parameters after the context, and the return type."""
    signature = list(inspect.signature(function).parameters.values())
    if not signature:
        raise TypeError("its first parameter must be the context")
    # The context's type is left out: its import may be for type checkers only.
    written = {key: hint for key, hint in function.__annotations__.items() if key != signature[0].name}
    names = function.__globals__
    hints = get_type_hints(SimpleNamespace(__annotations__=written), globalns=names, include_extras=True)
    if "return" not in hints:
        raise TypeError("it has no return annotation")
    return tuple(_parameter(each, hints.get(each.name)) for each in signature[1:]), hints["return"]


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
    )
    _check_type(parameter, bare)
    return parameter


def _unwrap(hint: Any) -> tuple[Marker | None, Any]:
    """The marker in an annotation, and the type without it; `Marked | None` is marked as well."""
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
    """A type without constraints and None, and whether it admits None."""
    if get_origin(kind) is Annotated:
        return _bare(kind.__origin__)
    if get_origin(kind) in (Union, UnionType):
        members = [member for member in get_args(kind) if member is not NoneType]
        bare = _bare(members[0])[0] if len(members) == 1 else kind
        return bare, NoneType in get_args(kind)
    return kind, False


def _choices(bare: Any) -> tuple[str, ...]:
    """The choices that a type, or the items of a list, leave by themselves."""
    if get_origin(bare) in (list, set, frozenset):
        bare = _bare(get_args(bare)[0])[0]
    if get_origin(bare) is Literal:
        return tuple(map(str, get_args(bare)))
    if isinstance(bare, type) and issubclass(bare, Enum):
        return tuple(str(member.value) for member in bare)
    return ()


def _check_type(parameter: Parameter, bare: Any) -> None:
    """Refuse a type that the kind of argument cannot have."""
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


def _check(path: str, parameters: tuple[Parameter, ...]) -> None:
    """Refuse a path and parameters that do not belong together, and two arguments of one name."""
    fields = _FIELD.findall(path)
    keys = [each.key for each in parameters if each.place is Place.PATH]
    for odd in sorted(set(fields) ^ set(keys)):
        raise TypeError(f"{odd!r} must stand both in the path {path} and among the parameters, as a Path")
    names = [each.name for each in parameters]
    for name in names:
        if names.count(name) > 1:
            raise TypeError(f"two of its parameters are named {name!r}")
    if sum(each.place is Place.DOCUMENT for each in parameters) > 1:
        raise TypeError("only one of its parameters can be a Document")


def _template_fields(operation: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(operation) if name is not None]


def _operations(operation: str | None, parameters: tuple[Parameter, ...]) -> tuple[str, ...]:
    """Every name that an operation's template can become."""
    if operation is None:
        return ()
    fields = _template_fields(operation)
    choices = {each.key: each.choices for each in parameters if each.choices and not each.many}
    for name in fields:
        if name not in choices:
            raise TypeError(f"its operation {operation!r} names {name!r}, which is no parameter with choices")
    combinations = itertools.product(*(choices[name] for name in fields))
    return tuple(operation.format(**dict(zip(fields, chosen, strict=True))) for chosen in combinations)
