"""Context: the store, the settings and all else that the functions in declarations are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from pvcd.clock import Clock
from pvcd.records import Record
from pvcd.settings import Settings
from pvcd.store import Store

T = TypeVar("T")


class Role(StrEnum):
    """The kind of process that a context belongs to."""

    API = "api"
    NODE = "node"
    PRIMARY = "primary"
    """A node's agent while it holds the primary lease; its components are closed when the lease is lost."""
    WORKER = "worker"


class ComponentKey(Generic[T]):
    """The typed key of a component: `context[HYPERVISOR]`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"ComponentKey({self.name!r})"


@dataclass(frozen=True)
class Component(Generic[T]):
    """A thing that is opened at start and closed at stop: an async context manager yields it."""

    key: ComponentKey[T]
    open: Callable[[Context], AbstractAsyncContextManager[T]]
    roles: tuple[Role, ...]
    needs: tuple[ComponentKey[Any], ...] = ()
    """Components that are opened before it and closed after it, in roles that have them."""
    fake: Callable[[Context], AbstractAsyncContextManager[T]] | None = None
    """Opened in its place in a simulated cluster; see pvcd.testing."""
    in_memory: bool = False
    """It reaches what is outside of this process only through the store and other components, if at all: a simulated
    cluster opens it as it is."""

    @property
    def name(self) -> str:
        """The name of its key."""
        return self.key.name


class Declarations(Protocol):
    """The declarations of all plugins, including the core's own."""

    @property
    def complaints(self) -> list[str]:
        """A sentence for each plugin and section of the settings that is not used."""

    def of(self, kind: type[T]) -> tuple[T, ...]:
        """Return all declarations of a kind, such as `Step`, sorted by name."""

    def owner(self, declaration: object) -> str:
        """Return which plugin declared something: `plugin 'vm'`."""


class Operations(Protocol):
    """Runs operations between guards, listeners and site hooks; see pvcd/cluster/operations.py."""

    async def run(
        self, context: Context, name: str, arguments: Mapping[str, Any], act: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Ask the guards and site hooks, act, notify the listeners and site hooks; return the result of `act`."""

    async def notify(
        self, context: Context, name: str, arguments: Mapping[str, Any], failure: Exception | None = None
    ) -> None:
        """Notify listeners and site hooks of an act of this daemon; of a failure, site hooks only."""

    async def ask(self, context: Context, name: str, **arguments: Any) -> list[Any]:
        """Let every listener do its part of an operation of this agent; return their answers other than None."""


class NodeCommands(Protocol):
    """Asks the agents of nodes; see pvcd/cluster/node_commands.py."""

    async def ask_primary(self, verb: str, *, seconds: float = 10.0, **arguments: Any) -> Any:
        """Ask the primary, as `ask` asks a node."""

    async def ask(self, node: str, verb: str, *, seconds: float = 10.0, **arguments: Any) -> Any:
        """Let a node run a command and return its answer, within `seconds`.

        Raises the error that the node answers, or `Failed` when it is not running, was restarted or does not answer.
        """


@dataclass(frozen=True)
class Context:
    """All that a plugin's function may need; cheap to derive from."""

    role: Role
    settings: Settings
    store: Store
    clock: Clock
    declarations: Declarations
    operations: Operations
    node_commands: NodeCommands
    node: str = ""
    """The name of this node; empty in the API."""
    user: str | None = None
    """The user who asks: the description of the token, if the request carries one."""
    wake: Callable[[Record], None] = lambda record: None
    """In an agent: reconcile a record, because something outside the store has happened."""
    components: dict[ComponentKey[Any], Any] = field(default_factory=dict)

    def __getitem__(self, key: ComponentKey[T]) -> T:
        """Return the open component of a key."""
        try:
            component: T = self.components[key]
        except KeyError:
            raise LookupError(f"component {key.name!r} is not open in the role {self.role.value!r}") from None
        return component

    def declared(self, kind: type[T]) -> tuple[T, ...]:
        """Return all declarations of a kind, such as `Step`, sorted by name."""
        return self.declarations.of(kind)

    def derive(self, **values: Any) -> Context:
        """Return the same context with other values."""
        return dataclasses.replace(self, **values)
