"""The sweeper: a duty of the primary, which removes the parents in ZooKeeper that hold no record any more.

ZooKeeper refuses to remove a parent to which something was added meanwhile, and a writer that finds a parent gone makes
it again. Roots, and paths that are those of records themselves, are not removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from pvcd.declare.context import Component, ComponentKey, Context, Role
from pvcd.errors import Changed, PvcdError
from pvcd.records import Record
from pvcd.store.tree import DeleteNode, Tree, parents_of

log = logging.getLogger(__name__)
PAUSE_SECONDS = 10.0
"""The time from the removal of a record to that of its parents: others of its kind often follow."""
WALK_SECONDS = 900.0
"""The longest time to the next look at all parents: a record that came and went at once was never seen here."""
SWEEPER: ComponentKey[None] = ComponentKey("sweeper")


@contextlib.asynccontextmanager
async def open_sweeper(context: Context) -> AsyncIterator[None]:
    """Sweep what earlier primaries left, and then after each removal of a record."""
    sweeping = asyncio.ensure_future(_sweep(context))
    try:
        yield
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)


async def _sweep(context: Context) -> None:
    store, tree, walk = context.store, context.store.tree, True
    types: tuple[Any, ...] = context.declared(Record)
    suspects: set[str] = set()
    """Parents that may be empty."""

    def suspect(path: str) -> None:
        suspects.update(each for each in parents_of(path)[1:] if not any(kind.owns(each) for kind in types))

    end = store.subscribe(lambda path, old, new: None if new else suspect(path))
    try:
        while True:
            try:
                for path in await tree.empty() if walk else ():
                    suspect(f"{path}/")
                for path in sorted(suspects, key=len, reverse=True):  # children first
                    suspects.discard(path)
                    await _prune(tree, path)
                walk = not await store.wait_for(lambda: bool(suspects), WALK_SECONDS)
            except PvcdError as error:
                log.info("empty parents are removed later: %s", error)
                walk = True
            except Exception:
                log.exception("empty parents are removed later")
                walk = True
            await context.clock.sleep(PAUSE_SECONDS)
    finally:
        end()


async def _prune(tree: Tree, path: str) -> None:
    """Remove a parent that has neither data nor children."""
    if await tree.get(path) is None:
        with contextlib.suppress(Changed):  # it has children, or is gone
            await tree.commit([DeleteNode(path, 0)])


COMPONENT: Component[None] = Component(SWEEPER, open_sweeper, roles=(Role.PRIMARY,), in_memory=True)
