"""Handlers: called with a record as it is now, one turn at a time per record; merged, retried and repeated.

    handlers = Handlers()

    @handlers.on(VM)
    async def follow(context: Context, vm: VM) -> Requeue | None:
        ...look, compare, act; return Requeue(2.0) to be called once more in two seconds...

The laws: safe to run twice; never wait long in a turn; raise what could not be done and it is tried again with
back-off. Every record is handled anew at intervals even if nothing changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pvcd.declare.context import Context
from pvcd.records import Record

R = TypeVar("R", bound=Record)
Scope = Literal["node", "primary"]


@dataclass(frozen=True)
class Requeue:
    """Returned by a handler that wants another turn, changed or not."""

    seconds: float


Follow = Callable[["Context", Any], Awaitable[Requeue | None]]


@dataclass(frozen=True)
class Handler:
    """One function that follows the records of a type."""

    name: str
    scope: Scope
    record_type: type[Record]
    function: Follow
    gone: bool = False
    """Called with the last record after it was removed, instead of with each change."""
    takes_long: bool = False
    """Its turns may take hours, so they take nobody's place of the few that are side by side."""


@dataclass(frozen=True)
class NodeCommandHandler:
    """One function that does what a command asks of this node: see pvcd/cluster/commands.py."""

    name: str
    scope: Scope
    function: Callable[..., Awaitable[Any]]


class Handlers:
    """A table of handlers: `scope="node"` runs on every node, `scope="primary"` where the lease is held."""

    def __init__(self, scope: Scope = "node") -> None:
        self.scope = scope
        self.handlers: list[Handler] = []
        self.node_commands: list[NodeCommandHandler] = []

    def on(
        self, record_type: type[R], *, takes_long: bool = False
    ) -> Callable[
        [Callable[[Context, R], Awaitable[Requeue | None]]], Callable[[Context, R], Awaitable[Requeue | None]]
    ]:
        """Declare what follows the records of a type."""

        def declare(
            function: Callable[[Context, R], Awaitable[Requeue | None]],
        ) -> Callable[[Context, R], Awaitable[Requeue | None]]:
            name = _full_name(function, record_type)
            self.handlers.append(Handler(name, self.scope, record_type, function, takes_long=takes_long))
            return function

        return declare

    def gone(
        self, record_type: type[R]
    ) -> Callable[[Callable[[Context, R], Awaitable[None]]], Callable[[Context, R], Awaitable[None]]]:
        """Declare what is done after a record of a type was removed; it is called with what the record was."""

        def declare(function: Callable[[Context, R], Awaitable[None]]) -> Callable[[Context, R], Awaitable[None]]:
            name = f"{_full_name(function, record_type)} gone"
            self.handlers.append(Handler(name, self.scope, record_type, function, gone=True))
            return function

        return declare

    def node_command(self, verb: str) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
        """Declare what answers a command; the function takes a context and the command's arguments by name."""

        def declare(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            self.node_commands.append(NodeCommandHandler(verb, self.scope, function))
            return function

        return declare


def _full_name(function: Callable[..., Any], record_type: type[Record]) -> str:
    return f"{function.__module__}.{function.__qualname__}({record_type.__name__})"
