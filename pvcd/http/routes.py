"""Routes: a function with marked parameters, a docstring and a return type is an endpoint.

    NoteName = Annotated[str, Path("Name of the note")]
    Wanted = Annotated[State, Value("The requested state", choices=("open", "done"))]

    routes = Routes("/api/v1/notes", tag="Notes")

    @routes.post("/{note}/state", operation="note-{state}")
    async def set_state(context: Context, note: NoteName, state: Wanted) -> Message:
        '''Set the state of a note.'''

Everything is derived once, at the declaration; a mistake raises a TypeError that names the function.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re
import string
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from aiohttp import web
from pydantic.errors import PydanticUserError

from pvcd.declare.operations import OperationKind
from pvcd.http.parameters import Parameter, Place, signature
from pvcd.http.replies import reply
from pvcd.http.values import read_arguments

_FIELD = re.compile(r"\{(\w+)\}")
_PATH = re.compile(r"(/([A-Za-z0-9._~-]+|\{\w+\}))+")


@dataclass(frozen=True, eq=False, kw_only=True)
class Route:
    """A declared endpoint."""

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
    public: bool
    """Open to everyone, even while authentication is enabled."""

    @property
    def name(self) -> str:
        """Such as `POST /api/v1/notes/{note}/state`."""
        return f"{self.method} {self.path}"

    @property
    def kinds(self) -> tuple[OperationKind, ...]:
        """The operations that its requests are."""
        return tuple(
            OperationKind(
                name=name,
                doc=self.doc,
                place="api",
                arguments={each.name: each.schema for each in self.parameters},
                names={each.key: each.name for each in self.parameters},
                secrets=frozenset(each.name for each in self.parameters if each.secret),
                redactions={each.name: each.redact for each in self.parameters if each.redact},
            )
            for name in self.operations
        )

    def operation_for(self, arguments: Mapping[str, Any]) -> str | None:
        """Return the name of the operation of a request with these arguments, or None."""
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
    """The routes below one prefix, in the order of declaration."""

    def __init__(self, prefix: str, tag: str) -> None:
        self.prefix = prefix
        self.tag = tag
        self._routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)

    def get(
        self, path: str = "", *, operation: str | None = None, status: int = 200, public: bool = False
    ) -> Callable[[Function], Function]:
        """Declare the function for GET of this path."""
        return self._declare("GET", path, operation, status, public)

    def post(
        self,
        path: str = "",
        *,
        operation: str | None = None,
        status: int = 200,
        public: bool = False,
        also: str | None = None,
    ) -> Callable[[Function], Function]:
        """Declare the function for POST to this path, and to `also`, where some of its values are parts of the path."""
        return self._declare("POST", path, operation, status, public, also)

    def put(
        self,
        path: str = "",
        *,
        operation: str | None = None,
        status: int = 200,
        public: bool = False,
        also: str | None = None,
    ) -> Callable[[Function], Function]:
        """Declare the function for PUT to this path, and to `also`, as for POST."""
        return self._declare("PUT", path, operation, status, public, also)

    def delete(
        self, path: str = "", *, operation: str | None = None, status: int = 200, public: bool = False
    ) -> Callable[[Function], Function]:
        """Declare the function for DELETE of this path."""
        return self._declare("DELETE", path, operation, status, public)

    def _declare(
        self, method: str, path: str, operation: str | None, status: int, public: bool, also: str | None = None
    ) -> Callable[[Function], Function]:
        def declare(function: Function) -> Function:
            try:
                for each in (path,) if also is None else (path, also):
                    self._routes.append(
                        _route(
                            function,
                            method=method,
                            path=self.prefix + each,
                            tag=self.tag,
                            operation=operation,
                            status=status,
                            public=public,
                        )
                    )
            except (TypeError, NameError, PydanticUserError) as error:
                raise TypeError(f"{function.__module__}.{function.__qualname__}: {error}") from error
            return function

        return declare


Admit = Callable[[web.Request, Route], Awaitable[None]]
Call = Callable[[web.Request, Route, dict[str, Any]], Awaitable[object]]


def register(app: web.Application, routes: Iterable[Route], call: Call, admit: Admit | None = None) -> None:
    """Add routes to an app: `admit` may refuse a request before its body is read, `call` runs a route's function."""
    for route in routes:
        if route.method == "GET":
            app.router.add_get(route.path, _handler(route, call, admit))  # answers HEAD as well
        else:
            app.router.add_route(route.method, route.path, _handler(route, call, admit))


def _handler(route: Route, call: Call, admit: Admit | None) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        if admit is not None:
            await admit(request, route)
        arguments = await read_arguments(request, route.parameters)
        return await reply(request, await call(request, route, arguments), route.status)

    return handle


def _route(
    function: Callable[..., Awaitable[object]],
    *,
    method: str,
    path: str,
    tag: str,
    operation: str | None,
    status: int,
    public: bool,
) -> Route:
    """Build the route of a declaration. Raises `TypeError` for a mistake in it."""
    if not inspect.iscoroutinefunction(function):
        raise TypeError("it must be an async function")
    doc = inspect.getdoc(function)
    if not doc:
        raise TypeError("it has no docstring")
    parameters, returns = signature(function)
    parameters = tuple(_placed(each, path) for each in parameters)
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
        public=public,
    )


def _placed(parameter: Parameter, path: str) -> Parameter:
    """Make a value that this path names a part of it. Raises `TypeError` for a list and for a secret."""
    if parameter.place is Place.VALUE and f"{{{parameter.key}}}" in path:
        if parameter.many or parameter.secret:
            raise TypeError(f"its parameter {parameter.key!r} cannot be a part of the path {path}")
        return dataclasses.replace(parameter, place=Place.PATH, required=True)
    return parameter


def _check(path: str, parameters: tuple[Parameter, ...]) -> None:
    """Raise `TypeError` for a path and parameters that do not match, or two arguments of one name."""
    if not _PATH.fullmatch(path):
        raise TypeError(f"its path {path!r} must be words or whole {{names}}, each after a slash")
    fields = _FIELD.findall(path)
    keys = [each.key for each in parameters if each.place is Place.PATH]
    for odd in sorted(set(fields) ^ set(keys)):
        raise TypeError(f"{odd!r} must be both in the path {path} and among the parameters, as a Path")
    names = [each.name for each in parameters]
    for name in names:
        if names.count(name) > 1:
            raise TypeError(f"two of its parameters are named {name!r}")
    if sum(each.place is Place.DOCUMENT for each in parameters) > 1:
        raise TypeError("only one of its parameters can be a Document")


def _template_fields(operation: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(operation) if name is not None]


def _operations(operation: str | None, parameters: tuple[Parameter, ...]) -> tuple[str, ...]:
    """Return every name that an operation's template can become."""
    if operation is None:
        return ()
    fields = _template_fields(operation)
    choices = {each.key: each.choices for each in parameters if each.choices and not each.many}
    for name in fields:
        if name not in choices:
            raise TypeError(f"its operation {operation!r} names {name!r}, which is not a parameter with choices")
    combinations = itertools.product(*(choices[name] for name in fields))
    return tuple(operation.format(**dict(zip(fields, chosen, strict=True))) for chosen in combinations)
