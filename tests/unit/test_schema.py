"""The schema version of the store: new stores, migrations, and stores that this pvcd cannot use."""

from __future__ import annotations

import pytest

from pvcd.cluster import schema
from pvcd.cluster.schema import VERSION, Schema
from pvcd.errors import Failed
from pvcd.store import Create, Store
from pvcd.store.memory import MemoryServer, MemoryTree


async def opened() -> Store:
    store = Store(MemoryTree(MemoryServer()), [Schema])
    await store.open()
    return store


def number_in(store: Store) -> int:
    (found,) = store.all(Schema)
    return found.number


async def test_an_empty_store_gets_the_current_version() -> None:
    store = await opened()
    await schema.prepare(store)
    await schema.prepare(store)
    assert number_in(store) == VERSION
    await store.close()


@pytest.mark.parametrize(
    ("number", "code", "advice"),
    [
        (1, "schema-too-old", "Run the pvcd that wrote them, or start with an empty store"),
        (VERSION + 1, "schema-too-new", "Update this pvcd."),
    ],
)
async def test_a_store_of_another_schema_is_refused_unchanged(number: int, code: str, advice: str) -> None:
    store = await opened()
    await store.write(Create(Schema(number=number)))
    with pytest.raises(Failed, match=advice) as raised:
        await schema.prepare(store)
    assert raised.value.code == code
    assert number_in(store) == number
    await store.close()


async def test_migrations_run_in_order_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    async def migrate(store: Store) -> None:
        ran.append(number_in(store))

    monkeypatch.setattr(schema, "MIGRATIONS", {0: migrate, 1: migrate})
    store = await opened()
    await store.write(Create(Schema(number=0)))
    await schema.prepare(store)
    await schema.prepare(store)
    assert (ran, number_in(store)) == ([0, 1], VERSION)
    await store.close()


async def test_no_migration_runs_if_a_later_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    async def migrate(store: Store) -> None:
        ran.append(store)

    monkeypatch.setattr(schema, "MIGRATIONS", {0: migrate})
    store = await opened()
    await store.write(Create(Schema(number=0)))
    with pytest.raises(Failed, match="schema 0"):
        await schema.prepare(store)
    assert ran == []
    await store.close()
