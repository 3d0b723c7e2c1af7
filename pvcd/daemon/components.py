"""The context of a process, and its components: opened at start, closed at stop."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from pvcd.clock import Clock
from pvcd.cluster.node_commands import NodeCommands
from pvcd.cluster.operations import Operations
from pvcd.declare.context import Component, Context, Role
from pvcd.plugin.registry import Registry, in_order
from pvcd.settings import Settings
from pvcd.store import Store
from pvcd.store.tree import Tree

log = logging.getLogger(__name__)


def make_context(
    role: Role, settings: Settings, registry: Registry, tree: Tree, clock: Clock, node: str = ""
) -> Context:
    """Return the context of a process; its store is not open yet."""
    store = Store(tree, registry.records, clock)
    return Context(
        role=role,
        settings=settings,
        store=store,
        clock=clock,
        declarations=registry,
        operations=Operations(registry.guards, registry.listeners, registry.known_operations),
        node_commands=NodeCommands(store, clock, registry.node_commands),
        node=node,
    )


@contextlib.asynccontextmanager
async def open_components(context: Context) -> AsyncIterator[None]:
    """Open the components of the context's role in the order of their needs, and close them in reverse."""
    async with contextlib.AsyncExitStack() as stack:
        for component in in_order([c for c in context.declared(Component) if context.role in c.roles]):
            try:
                context.components[component.key] = await stack.enter_async_context(component.open(context))
            except Exception:
                owner = context.declarations.owner(component)
                log.error("cannot open component %s of %s", component.name, owner)
                raise
            stack.callback(context.components.pop, component.key)
        yield
