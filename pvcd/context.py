"""Context: what a declaration's function is given."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pvcd.clock import Clock
from pvcd.commands import Commands
from pvcd.operations import Operations
from pvcd.records import Record
from pvcd.settings import Settings
from pvcd.store import Store
from pvcd.store.tree import Tree

if TYPE_CHECKING:
    from pvcd.registry import Registry

log = logging.getLogger(__name__)
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


@dataclass(frozen=True)
class Context:
    """The store, the settings and all else that a plugin's function may need; cheap to derive from."""

    role: Role
    settings: Settings
    store: Store
    clock: Clock
    registry: Registry
    operations: Operations
    commands: Commands
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

    def derive(self, **values: Any) -> Context:
        """The same context with other values."""
        return dataclasses.replace(self, **values)


def make_context(
    role: Role, settings: Settings, registry: Registry, tree: Tree, clock: Clock, node: str = ""
) -> Context:
    """The context of a process; its store is not open yet."""
    store = Store(tree, registry.records, clock)
    return Context(
        role=role,
        settings=settings,
        store=store,
        clock=clock,
        registry=registry,
        operations=Operations(registry.guards, registry.listeners, registry.known_operations),
        commands=Commands(store, clock, registry.answers),
        node=node,
    )


@contextlib.asynccontextmanager
async def open_components(context: Context) -> AsyncIterator[None]:
    """Open the components of the context's role in the order of their needs, and close them in reverse."""
    async with contextlib.AsyncExitStack() as stack:
        for component in in_order([c for c in context.registry.components if context.role in c.roles]):
            try:
                context.components[component.key] = await stack.enter_async_context(component.open(context))
            except Exception:
                owner = context.registry.owner("components", component.name)
                log.error("the component %s of %s cannot be opened", component.name, owner)
                raise
            stack.callback(context.components.pop, component.key)
        yield


def in_order(components: list[Component[Any]]) -> list[Component[Any]]:
    """Sorted so that each comes after what it needs."""
    waiting = {component.key: component for component in components}
    ordered: list[Component[Any]] = []
    while waiting:
        free = [c for c in waiting.values() if not any(need in waiting for need in c.needs)]
        if not free:
            raise TypeError(f"these components need each other: {', '.join(sorted(key.name for key in waiting))}")
        for component in free:
            ordered.append(waiting.pop(component.key))
    return ordered
