"""Views keep replies encoded, and make anew what has changed."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from pvcd import Create, Delete, Put, Record, View
from pvcd.http.replies import Encoded
from pvcd.store import Store
from pvcd.store.memory import MemoryServer, MemoryTree


class Shop(Record, path="/shops/{name}"):
    name: str
    open: bool = True


class Visit(Record, path="/shops/{name}/visit"):
    name: str
    guests: int = 0


class ShopView(BaseModel):
    name: str
    open: bool
    guests: int


class Bench:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.rendered: list[str] = []
        self.view = View(store, Shop, self.render, lambda shop: (shop.name, shop.name.upper()))

    def render(self, shop: Shop) -> ShopView:
        self.rendered.append(shop.name)
        visit = self.store.get(Visit, shop.name)
        return ShopView(name=shop.name, open=shop.open, guests=visit.guests if visit else 0)


@pytest.fixture
async def bench() -> Bench:
    store = Store(MemoryTree(MemoryServer()), [Shop, Visit])
    await store.open()
    await store.write(Create(Shop(name="b")), Create(Shop(name="a")), Create(Shop(name="c")))
    return Bench(store)


def names(reply: Encoded[list[ShopView]]) -> list[str]:
    return [shop["name"] for shop in json.loads(reply.body)]


async def test_all_are_shown_in_order_and_rendered_once(bench: Bench) -> None:
    first = bench.view.all()
    assert names(first) == ["a", "b", "c"]
    assert bench.view.all() is first
    assert bench.rendered == ["a", "b", "c"]


async def test_only_changed_records_are_rendered_again(bench: Bench) -> None:
    before = bench.view.all()
    bench.rendered.clear()
    shop = bench.store.get(Shop, "b")
    assert shop is not None
    await bench.store.write(Put(shop.changed(open=False)))
    after = bench.view.all()
    assert bench.rendered == ["b"]
    assert json.loads(after.body)[1] == {"name": "b", "open": False, "guests": 0}
    assert after.etag != before.etag


async def test_a_change_below_a_record_renders_it_again(bench: Bench) -> None:
    bench.view.all()
    await bench.store.write(Create(Visit(name="c", guests=3)))
    shop = bench.store.get(Shop, "c")
    assert shop is not None
    assert json.loads(bench.view.one(shop).body) == [{"name": "c", "open": True, "guests": 3}]
    assert json.loads(bench.view.all().body)[2]["guests"] == 3


async def test_created_and_removed_records_appear_and_disappear(bench: Bench) -> None:
    bench.view.all()
    shop = bench.store.get(Shop, "b")
    assert shop is not None
    await bench.store.write(Delete(shop), Create(Shop(name="aa")))
    assert names(bench.view.all()) == ["a", "aa", "c"]


async def test_a_limit_matches_any_of_the_names(bench: Bench) -> None:
    assert names(bench.view.filter("B", lambda shop: True)) == ["b"]
    assert names(bench.view.filter("^[ab]$", lambda shop: True)) == ["a", "b"]
    assert names(bench.view.filter(None, lambda shop: shop.name != "a")) == ["b", "c"]
    assert names(bench.view.filter("x", lambda shop: True)) == []


async def test_a_closed_view_stops_following(bench: Bench) -> None:
    bench.view.all()
    bench.view.close()
    await bench.store.write(Create(Shop(name="d")))
    assert names(bench.view.all()) == ["a", "b", "c"]
