"""Context: what a declaration's function is given."""

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
    """The process a context belongs to."""

    API = "api"
    NODE = "node"
    PRIMARY = "primary"
    """That of a node's agent while it holds the primary lease; its components are closed when the lease is lost."""
    WORKER = "worker"


class ComponentKey(Generic[T]):
    """The typed key of a component: `context[HYPERVISOR]`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"ComponentKey({self.name!r})"


@dataclass(frozen=True)
class Component(Generic[T]):
    """Something opened at start and closed at stop: an async context manager that yields it."""

    key: ComponentKey[T]
    open: Callable[[Context], AbstractAsyncContextManager[T]]
    roles: tuple[Role, ...]
    needs: tuple[ComponentKey[Any], ...] = ()
    """Components that are opened before it and closed after it, where the role has them."""
    fake: Callable[[Context], AbstractAsyncContextManager[T]] | None = None
    """Opened in its place in a simulated cluster: see pvcd.testing."""

    @property
    def name(self) -> str:
        """The name it is sorted and refused by."""
        return self.key.name


class Declarations(Protocol):
    """What all plugins declared, the core's own included."""

    @property
    def complaints(self) -> list[str]:
        """What is left out of what was asked for, a sentence each."""

    def of(self, kind: type[T]) -> tuple[T, ...]:
        """All declarations of a kind, such as `Step`, sorted by name."""

    def owner(self, declaration: object) -> str:
        """The plugin that declared something: `plugin 'vm'`."""


class Operations(Protocol):
    """Runs operations between the guards, the listeners and the site's hooks: see pvcd/cluster/operations.py."""

    async def run(
        self, context: Context, name: str, arguments: Mapping[str, Any], act: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Ask the guards and the hooks, act, notify the listeners and the hooks; return what `act` returned."""

    async def notify(
        self, context: Context, name: str, arguments: Mapping[str, Any], failure: Exception | None = None
    ) -> None:
        """Notify the listeners and the hooks of what was done, or happened by itself; of a failure only the hooks."""

    async def ask(self, context: Context, name: str, **arguments: Any) -> list[Any]:
        """Let every listener do its share of an operation of this agent, and return their answers other than None."""


class NodeCommands(Protocol):
    """Asks the agents of nodes: see pvcd/cluster/commands.py."""

    async def ask_primary(self, verb: str, *, seconds: float = 10.0, **arguments: Any) -> Any:
        """Ask the primary, as `ask` does."""

    async def ask(self, node: str, verb: str, *, seconds: float = 10.0, **arguments: Any) -> Any:
        """Let a node do something and return what it answers, within `seconds`.

        Raises what the node says went wrong, or `Failed` when it is not running, was restarted or does not answer.
        """


@dataclass(frozen=True)
class Context:
    """The store, the settings and all else that a plugin's function may need; cheap to derive from."""

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
    """Who asks: the description of the token that was shown, if there is one."""
    wake: Callable[[Record], None] = lambda record: None
    """In an agent: give the handlers of a record a turn, because something outside the store happened."""
    components: dict[ComponentKey[Any], Any] = field(default_factory=dict)

    def __getitem__(self, key: ComponentKey[T]) -> T:
        """The open component of this key."""
        try:
            component: T = self.components[key]
        except KeyError:
            raise LookupError(f"component {key.name!r} is not open in the role {self.role.value!r}") from None
        return component

    def declared(self, kind: type[T]) -> tuple[T, ...]:
        """All that the plugins declared of a kind, such as `Step`, sorted by name."""
        return self.declarations.of(kind)

    def derive(self, **values: Any) -> Context:
        """The same context with other values."""
        return dataclasses.replace(self, **values)
