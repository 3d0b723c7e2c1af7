"""Faults of the store in memory that the contract suite cannot ask of a real server."""

from __future__ import annotations

import pytest

from pvcd.clock import settle
from pvcd.errors import StoreUnavailable
from pvcd.store.memory import MemoryServer, MemoryTree
from pvcd.store.tree import CreateNode, Link


async def connect(server: MemoryServer) -> tuple[MemoryTree, list[str], list[Link]]:
    tree = MemoryTree(server)
    hints: list[str] = []
    links: list[Link] = []
    await tree.open(hints.append, links.append)
    await tree.watch(["/a"])
    return tree, hints, links


async def test_cut_off_tree_fails_alone() -> None:
    server = MemoryServer()
    tree, hints, links = await connect(server)
    other, _, other_links = await connect(server)
    server.cut(tree)
    with pytest.raises(StoreUnavailable):
        await tree.get("/a/x")
    await other.commit([CreateNode("/a/x", b"1")])
    await settle()
    assert (links, other_links, hints) == ([Link.SUSPENDED], [], [])
    server.heal(tree)
    await settle()
    assert links == [Link.SUSPENDED, Link.CONNECTED]
    assert set(await tree.load()) == {"/a/x"}


async def test_session_expired_while_cut_off_is_noticed_on_return() -> None:
    server = MemoryServer()
    tree, _, links = await connect(server)
    other, hints, _ = await connect(server)
    session = tree.session
    await tree.commit([CreateNode("/a/x", b"1", ephemeral=True)])
    server.cut(tree)
    await settle()
    hints.clear()
    server.expire(session)
    await settle()
    assert links == [Link.SUSPENDED]
    assert hints == ["/a/x"]
    assert await other.load() == {}
    server.heal(tree)
    await settle()
    assert links == [Link.SUSPENDED, Link.LOST, Link.CONNECTED]
    assert tree.session not in (0, session)


async def test_documents_of_a_tree_closed_while_cut_off_stay_until_expiry() -> None:
    server = MemoryServer()
    tree, _, links = await connect(server)
    other, _, _ = await connect(server)
    session = tree.session
    await tree.commit([CreateNode("/a/x", b"1", ephemeral=True)])
    server.cut(tree)
    await tree.close()
    assert set(await other.load()) == {"/a/x"}
    server.expire(session)
    assert await other.load() == {}
    assert tree.link is Link.LOST
    assert links == []


async def test_stop_and_immediate_start_are_both_reported() -> None:
    server = MemoryServer()
    tree, _, links = await connect(server)
    server.stop()
    server.start()
    with pytest.raises(StoreUnavailable):
        await tree.sync()
    await settle()
    assert links == [Link.SUSPENDED, Link.CONNECTED]


async def test_a_stopped_server_cannot_be_opened() -> None:
    server = MemoryServer()
    server.stop()
    with pytest.raises(StoreUnavailable):
        await MemoryTree(server).open(lambda path: None, lambda link: None)
    server.start()
    await connect(server)
