"""The sweeper: no parent in ZooKeeper outlives the records below it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pvcd import Create, Delete, Record
from pvcd.clock import settle
from pvcd.cluster import sweeper
from pvcd.cluster.sweeper import PAUSE_SECONDS
from pvcd.store.tree import Tree
from pvcd.testing import SimulatedCluster

from .conftest import plugin


class Page(Record, path="/books/{shelf}/{book}/{page}"):
    shelf: str
    book: str
    page: int


class Book(Record, path="/libraries/{name}"):
    name: str


class Mark(Record, path="/libraries/{name}/marks/{page}"):
    name: str
    page: int


@pytest.fixture
async def cluster() -> AsyncIterator[SimulatedCluster]:
    module = plugin(records=[Page, Book, Mark])
    async with SimulatedCluster(["hv1"], plugins=[module], without=["node", "vm"]) as cluster:
        yield cluster


def paths(cluster: SimulatedCluster, root: str) -> list[str]:
    return sorted(path for path in cluster.server.documents if path.startswith(root))


async def test_parents_are_removed_with_their_last_record(cluster: SimulatedCluster) -> None:
    store = cluster.api.store
    await store.write(*(Create(Page(shelf="a", book=book, page=1)) for book in "xy"))
    await settle()
    for book in "xy":
        page = store.get(Page, "a", book, 1)
        assert page
        await store.write(Delete(page))
        await settle()
        await cluster.advance(PAUSE_SECONDS + 1)
        assert paths(cluster, "/books/a/x") == []
    assert paths(cluster, "/books") == ["/books"]


async def test_parents_that_an_earlier_primary_left_are_removed(cluster: SimulatedCluster) -> None:
    await cluster.kill_agent("hv1")
    cluster.server.make(["/books/a/x", "/books/b"])
    await cluster.start_agent("hv1")
    await cluster.advance(1)
    assert paths(cluster, "/books") == ["/books"]


async def test_a_parent_with_a_new_record_stays(cluster: SimulatedCluster) -> None:
    store, page = cluster.api.store, Page(shelf="a", book="x", page=1)
    await store.write(Create(page))
    await store.write(Delete(store.all(Page)[0]))
    await settle()
    await store.write(Create(page.changed(page=2)))
    await cluster.advance(PAUSE_SECONDS + 1)
    assert paths(cluster, "/books/") == ["/books/a", "/books/a/x", "/books/a/x/2"]


async def test_the_place_of_a_record_is_not_swept(cluster: SimulatedCluster) -> None:
    store = cluster.api.store
    await store.write(Create(Book(name="a")), Create(Mark(name="a", page=1)))
    await settle()
    await store.write(Delete(store.all(Mark)[0]))
    await settle()
    await cluster.advance(PAUSE_SECONDS + 1)
    assert paths(cluster, "/libraries/") == ["/libraries/a"]
    assert store.all(Book)


async def test_the_sweep_goes_on_after_the_store_was_away(cluster: SimulatedCluster) -> None:
    store = cluster.api.store
    await store.write(Create(Page(shelf="a", book="x", page=1)))
    await settle()
    await store.write(Delete(store.all(Page)[0]))
    await settle()
    cluster.server.stop()
    await cluster.advance(PAUSE_SECONDS + 1)
    cluster.server.start()
    await cluster.advance(2 * PAUSE_SECONDS + 1)
    assert paths(cluster, "/books/") == []


async def test_the_sweep_goes_on_after_an_error_of_its_own(
    cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prune, failures = sweeper._prune, [RuntimeError("a mistake")]

    async def fail_once(tree: Tree, path: str) -> None:
        if failures:
            raise failures.pop()
        await prune(tree, path)

    monkeypatch.setattr(sweeper, "_prune", fail_once)
    store = cluster.api.store
    await store.write(Create(Page(shelf="a", book="x", page=1)))
    await settle()
    await store.write(Delete(store.all(Page)[0]))
    await settle()
    await cluster.advance(2 * PAUSE_SECONDS + 1)
    assert "a mistake" in caplog.text
    assert paths(cluster, "/books/") == []
