"""Handlers: functions that reconcile records, one run at a time per record; merged, retried and repeated.

    handlers = Handlers()

    @handlers.on(VM)
    async def reconcile(context: Context, vm: VM) -> Requeue | None:
        ...look, compare, act; return Requeue(2.0) to be run again in two seconds...

A handler must be safe to run twice, and never wait long. It raises an error when it could not act, and is run again
after a backoff. Every record is reconciled at intervals even if nothing has changed.
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
    """Returned by a handler to be run again after so many seconds, even if nothing changes."""

    seconds: float


Reconcile = Callable[[Context, Any], Awaitable[Requeue | None]]


@dataclass(frozen=True)
class Handler:
    """One function that reconciles the records of a type."""

    name: str
    scope: Scope
    record_type: type[Record]
    function: Reconcile
    gone: bool = False
    """True if it is called with the last version of a removed record, instead of at each change."""
    takes_long: bool = False
    """True if a run may take hours: then it does not count among the few that run at the same time."""


@dataclass(frozen=True)
class NodeCommandHandler:
    """One function that answers a node command; see pvcd/cluster/node_commands.py."""

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
        """Declare the handler of a type of records."""

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
        """Declare a handler that is called with the last version of each record of a type after its removal."""

        def declare(function: Callable[[Context, R], Awaitable[None]]) -> Callable[[Context, R], Awaitable[None]]:
            name = f"{_full_name(function, record_type)} gone"
            self.handlers.append(Handler(name, self.scope, record_type, function, gone=True))
            return function

        return declare

    def node_command(self, verb: str) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
        """Declare the answer to a node command; the function takes a context and the command's arguments by name."""

        def declare(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            self.node_commands.append(NodeCommandHandler(verb, self.scope, function))
            return function

        return declare


def _full_name(function: Callable[..., Any], record_type: type[Record]) -> str:
    return f"{function.__module__}.{function.__qualname__}({record_type.__name__})"
