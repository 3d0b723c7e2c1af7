"""The version of the records in the store, and the steps from one to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from pvcd.errors import Changed, Exists, Failed
from pvcd.records import Record
from pvcd.store import Create, Put, Store

VERSION = 1


class Schema(Record, path="/schema/current"):
    """Which version the records have."""

    number: int


MIGRATIONS: dict[int, Callable[[Store], Awaitable[None]]] = {}
"""For each older version the step to the next; safe to run twice."""


async def prepare(store: Store) -> None:
    """Make the records those of this version, or say why that cannot be."""
    schema = await store.read(Schema)
    if schema is None:
        with contextlib.suppress(Exists):  # another daemon may be first
            await store.write(Create(Schema(number=VERSION)))
        schema = await store.read(Schema)
        if schema is None:
            raise Failed(f"What the store holds at {Schema.at()} is no schema version.", code="schema-unknown")
    if schema.number > VERSION:
        raise Failed(
            f"The store holds records of schema {schema.number}, but this pvcd knows only up to {VERSION}: update it.",
            code="schema-too-new",
        )
    while schema.number < VERSION:
        await MIGRATIONS[schema.number](store)
        with contextlib.suppress(Changed):  # another daemon may take the same step
            await store.write(Put(schema.changed(number=schema.number + 1)))
        schema = await store.read(Schema)
        assert schema is not None  # noqa: S101 (it is never removed)
