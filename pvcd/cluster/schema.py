"""The version of the records in the store, and the migrations from one version to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from pvcd.errors import Changed, Exists, Failed
from pvcd.records import Record
from pvcd.store import Create, Put, Store

VERSION = 2
"""Version 2 renamed records and fields; version 1 was never released, so there is no migration from it."""


class Schema(Record, path="/schema/current"):
    """The version of the records in the store."""

    number: int


MIGRATIONS: dict[int, Callable[[Store], Awaitable[None]]] = {}
"""Older version -> the function that migrates the records to the next one; it is safe to run twice."""


async def prepare(store: Store) -> None:
    """Bring the records to this version. Raises `Failed` when that is not possible."""
    schema = await store.read(Schema)
    if schema is None:
        with contextlib.suppress(Exists):  # another daemon may be first
            await store.write(Create(Schema(number=VERSION)))
        schema = await store.read(Schema)
        if schema is None:
            raise Failed(f"Cannot use the store: {Schema.at()} holds no schema version.", code="schema-unknown")
    if schema.number > VERSION:
        raise Failed(
            f"Cannot use the store: its records have schema {schema.number}, newer than schema {VERSION} of this pvcd. "
            "Update this pvcd.",
            code="schema-too-new",
        )
    if any(number not in MIGRATIONS for number in range(schema.number, VERSION)):
        raise Failed(
            f"Cannot use the store: its records have schema {schema.number}, which this pvcd cannot migrate to schema "
            f"{VERSION}. Run the pvcd that wrote them, or start with an empty store: another pvc.zookeeper.chroot.",
            code="schema-too-old",
        )
    while schema.number < VERSION:
        await MIGRATIONS[schema.number](store)
        with contextlib.suppress(Changed):  # another daemon may run the same migration
            await store.write(Put(schema.changed(number=schema.number + 1)))
        schema = await store.read(Schema)
        assert schema is not None  # noqa: S101 (it is never removed)
