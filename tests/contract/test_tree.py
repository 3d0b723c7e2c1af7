"""The contract of `Tree`, in memory and on ZooKeeper."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import signal
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from kazoo.client import KazooClient

from pvcd.errors import Changed, Exists, Invalid, StoreUnavailable
from pvcd.store.memory import MemoryServer, MemoryTree
from pvcd.store.tree import MAX_DOCUMENT_BYTES, CheckNode, CreateNode, DeleteNode, Link, Node, NodeChange, SetNode, Tree
from pvcd.store.zookeeper import ZooKeeperTree
from tests.servers import zookeeper_server

DEADLINE = 1.0
MARGIN = 1.0


class Server(Protocol):
    """The part of a ZooKeeper server (conftest.py) that the suite uses."""

    hosts: str

    def start(self) -> None: ...
    def stop(self, how: signal.Signals = signal.SIGTERM) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def mode(self) -> str: ...


class Client:
    """A tree and the hints that it gave."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.hints: list[str] = []
        self.links: list[Link] = []

    async def open(self, *roots: str) -> Tree:
        await self.tree.open(self.hints.append, self.links.append)
        await self.tree.watch(roots)
        return self.tree

    async def hinted(self, *paths: str) -> None:
        """Wait until each of these paths was hinted at, and forget all hints."""
        await until(lambda: set(paths) <= set(self.hints))
        self.hints.clear()


class Bench:
    """One store with any number of clients, and what can happen to it."""

    def __init__(self) -> None:
        self.clients: list[Client] = []

    def tree(self) -> Tree:
        raise NotImplementedError

    async def stop(self) -> None:
        """Let the server go away."""
        raise NotImplementedError

    async def start(self) -> None:
        """Let it come back."""
        raise NotImplementedError

    async def expire(self, tree: Tree) -> None:
        """Let the session of a tree end, though the tree lives."""
        raise NotImplementedError

    def client(self) -> Client:
        client = Client(self.tree())
        self.clients.append(client)
        return client

    async def close(self) -> None:
        for client in self.clients:
            await client.tree.close()


class MemoryBench(Bench):
    def __init__(self) -> None:
        super().__init__()
        self.server = MemoryServer()

    def tree(self) -> Tree:
        return MemoryTree(self.server)

    async def stop(self) -> None:
        self.server.stop()

    async def start(self) -> None:
        self.server.start()

    async def expire(self, tree: Tree) -> None:
        self.server.expire(tree.session)


class ZooKeeperBench(Bench):
    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.chroot = f"/test/{uuid.uuid4()}"

    def tree(self) -> Tree:
        return ZooKeeperTree(self.server.hosts, chroot=self.chroot, session_timeout=4.0, deadline=DEADLINE)

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def expire(self, tree: Tree) -> None:
        """Take the session over by another connection, and end it there."""
        assert isinstance(tree, ZooKeeperTree) and tree._client

        def take_over(identity: tuple[int, bytes]) -> None:
            thief = KazooClient(self.server.hosts, client_id=identity)
            thief.start()
            thief.stop()
            thief.close()

        await asyncio.to_thread(take_over, tree._client.client_id)


@pytest.fixture(params=["memory", "zookeeper"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    bench = MemoryBench() if request.param == "memory" else ZooKeeperBench(request.getfixturevalue("zookeeper"))
    yield bench
    await bench.close()


@pytest.fixture
async def tree(bench: Bench) -> Tree:
    """A tree that watches /a."""
    return await bench.client().open("/a")


@pytest.fixture
async def other(bench: Bench, tree: Tree) -> Client:
    """Another client of the same store, which watches /a, too."""
    client = bench.client()
    await client.open("/a")
    await tree.sync()
    client.hints.clear()
    return client


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (a condition of any kind, without an event to wait for)
            await asyncio.sleep(0.005)


async def create(tree: Tree, path: str, data: bytes = b"1", ephemeral: bool = False) -> Node:
    (node,) = await tree.commit([CreateNode(path, data, ephemeral)])
    assert node
    return node


# One document


async def test_a_created_document_is_read(tree: Tree) -> None:
    assert await tree.get("/a/x") is None
    made = await create(tree, "/a/x", b"one")
    assert made == Node(b"one", 0, made.serial, 0)
    assert await tree.get("/a/x") == made


async def test_a_set_increases_version_and_serial(tree: Tree) -> None:
    made = await create(tree, "/a/x", b"one")
    (changed,) = await tree.commit([SetNode("/a/x", b"two", 0)])
    assert changed
    assert changed == Node(b"two", 1, changed.serial, 0)
    assert changed.serial > made.serial
    assert await tree.get("/a/x") == changed


async def test_a_deleted_document_is_gone(tree: Tree) -> None:
    await create(tree, "/a/x")
    assert await tree.commit([DeleteNode("/a/x", 0)]) == [None]
    assert await tree.get("/a/x") is None


async def test_a_recreated_document_has_version_0_and_a_higher_serial(tree: Tree) -> None:
    first = await create(tree, "/a/x")
    await tree.commit([SetNode("/a/x", b"2", 0)])
    await tree.commit([DeleteNode("/a/x", 1)])
    again = await create(tree, "/a/x")
    assert again.version == 0
    assert again.serial > first.serial


async def test_an_existing_document_is_not_created(tree: Tree) -> None:
    await create(tree, "/a/x", b"one")
    with pytest.raises(Exists) as raised:
        await create(tree, "/a/x", b"two")
    assert raised.value.path == "/a/x"
    assert (await tree.get("/a/x") or Node(b"", 0, 0, 0)).data == b"one"


@pytest.mark.parametrize(
    "change",
    [SetNode("/a/x", b"new", 7), DeleteNode("/a/x", 7), CheckNode("/a/x", 7)],
)
async def test_a_change_of_another_version_raises_changed(tree: Tree, change: SetNode | DeleteNode | CheckNode) -> None:
    made = await create(tree, "/a/x")
    with pytest.raises(Changed) as raised:
        await tree.commit([change])
    assert raised.value.path == "/a/x"
    assert await tree.get("/a/x") == made


@pytest.mark.parametrize("change", [SetNode("/a/x", b"new", 0), DeleteNode("/a/x", 0), CheckNode("/a/x", 0)])
async def test_a_change_of_a_missing_document_raises_changed(
    tree: Tree, change: SetNode | DeleteNode | CheckNode
) -> None:
    with pytest.raises(Changed) as raised:
        await tree.commit([change])
    assert raised.value.path == "/a/x"


async def test_a_document_with_children_is_not_deleted(tree: Tree) -> None:
    await create(tree, "/a/x")
    await create(tree, "/a/x/y")
    with pytest.raises(Changed) as raised:
        await tree.commit([DeleteNode("/a/x", 0)])
    assert raised.value.path == "/a/x"
    await tree.commit([DeleteNode("/a/x/y", 0), DeleteNode("/a/x", 0)])
    assert await tree.load() == {}


async def test_a_version_that_was_never_read_is_an_error(tree: Tree) -> None:
    await create(tree, "/a/x")
    with pytest.raises(ValueError, match="/a/x"):
        await tree.commit([DeleteNode("/a/x", -1)])


# Transactions


async def test_a_transaction_applies_all_changes(tree: Tree) -> None:
    await tree.commit([CreateNode("/a/x", b"x"), CreateNode("/a/y", b"y"), CreateNode("/a/z", b"z")])
    results = await tree.commit(
        [
            CheckNode("/a/z", 0),
            SetNode("/a/x", b"xx", 0),
            DeleteNode("/a/y", 0),
            CreateNode("/a/new", b"n"),
            CreateNode("/a/new/child", b"c"),
        ]
    )
    serials = {node.serial for node in results if node}
    assert [node and node.data for node in results] == [None, b"xx", None, b"n", b"c"]
    assert len(serials) == 1
    assert {path: node.data for path, node in (await tree.load()).items()} == {
        "/a/x": b"xx",
        "/a/z": b"z",
        "/a/new": b"n",
        "/a/new/child": b"c",
    }


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (CreateNode("/a/y", b"y"), Exists),
        (SetNode("/a/y", b"y", 3), Changed),
        (DeleteNode("/a/none", 0), Changed),
        (CheckNode("/a/y", 1), Changed),
    ],
)
@pytest.mark.parametrize("first", [True, False])
async def test_a_transaction_applies_nothing_if_one_change_fails(
    tree: Tree, last: NodeChange, error: type[Changed | Exists], first: bool
) -> None:
    await tree.commit([CreateNode("/a/x", b"x"), CreateNode("/a/y", b"y"), CreateNode("/a/z", b"z")])
    before = await tree.load()
    good: list[NodeChange] = [CreateNode("/a/new", b"n"), SetNode("/a/x", b"xx", 0), DeleteNode("/a/z", 0)]
    with pytest.raises(error) as raised:
        await tree.commit([last, *good] if first else [*good, last])
    assert isinstance(raised.value, Changed | Exists)
    assert raised.value.path == last.path
    assert await tree.load() == before


async def test_a_transaction_without_changes_does_nothing(tree: Tree) -> None:
    assert await tree.commit([]) == []


async def test_two_hundred_concurrent_transactions_are_all_done(tree: Tree, other: Client) -> None:
    await create(tree, "/a/count", b"0")

    async def add(number: int) -> Node | None:
        return (await tree.commit([CreateNode(f"/a/n{number}", b"%d" % number)]))[0]

    made = await asyncio.gather(*map(add, range(200)))
    loaded = await other.tree.load()
    assert {f"/a/n{number}": node for number, node in enumerate(made)} == {
        path: node for path, node in loaded.items() if path != "/a/count"
    }
    assert len({node.serial for node in made if node}) == 200


async def test_one_of_many_writers_of_one_version_wins(tree: Tree, other: Client) -> None:
    await create(tree, "/a/x")
    writers = [each.commit([SetNode("/a/x", b"2", 0)]) for each in [tree, other.tree] * 20]
    results = await asyncio.gather(*writers, return_exceptions=True)
    assert sum(not isinstance(result, Changed) for result in results) == 1
    assert all(isinstance(result, Changed | list) for result in results)


# Documents without data


async def test_missing_parents_are_created_and_are_no_documents(tree: Tree) -> None:
    made = await create(tree, "/a/b/c/d")
    assert await tree.get("/a/b") is None
    assert await tree.load() == {"/a/b/c/d": made}


async def test_several_documents_below_missing_parents_are_created(tree: Tree) -> None:
    await tree.commit([CreateNode("/a/b/c", b"1"), CreateNode("/a/b/c/d", b"2"), CreateNode("/a/e/f", b"3")])
    assert set(await tree.load()) == {"/a/b/c", "/a/b/c/d", "/a/e/f"}


async def test_a_document_can_replace_a_node_without_data(tree: Tree) -> None:
    await create(tree, "/a/b/c")
    made = await create(tree, "/a/b", b"late")
    assert made.data == b"late"
    assert await tree.get("/a/b") == made
    assert set(await tree.load()) == {"/a/b", "/a/b/c"}
    await tree.commit([SetNode("/a/b", b"later", made.version)])


@pytest.mark.parametrize("first", ["create", "check"])
async def test_a_document_is_not_created_below_a_checked_one_that_is_gone(tree: Tree, first: str) -> None:
    changes: list[NodeChange] = [CreateNode("/a/b/c", b"1"), CheckNode("/a/b", 0)]
    with pytest.raises(Changed):
        await tree.commit(changes if first == "create" else changes[::-1])
    assert await tree.load() == {} and await tree.empty() == ["/a"]


async def test_documents_without_data_and_children_are_empty(tree: Tree) -> None:
    await create(tree, "/a/b/c/d")
    await create(tree, "/a/e")
    await tree.commit([DeleteNode("/a/b/c/d", 0)])
    assert await tree.empty() == ["/a/b/c"]
    await tree.commit([DeleteNode("/a/b/c", 0)])
    assert await tree.empty() == ["/a/b"]


async def test_a_document_is_created_while_others_remove_its_empty_parents(tree: Tree, other: Client) -> None:
    async def remove_parents() -> None:
        while True:
            for path in ("/a/b/c", "/a/b"):
                with contextlib.suppress(Changed):
                    await other.tree.commit([DeleteNode(path, 0)])

    removing = asyncio.create_task(remove_parents())
    for _ in range(100):
        await create(tree, "/a/b/c/d")
        await tree.commit([DeleteNode("/a/b/c/d", 0)])
    removing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await removing


async def test_a_root_can_be_a_document(tree: Tree, other: Client) -> None:
    made = await create(tree, "/a", b"root")
    await other.hinted("/a")
    assert await other.tree.load() == {"/a": made}


async def test_a_root_can_be_ephemeral(bench: Bench, tree: Tree, other: Client) -> None:
    made = await create(other.tree, "/a", ephemeral=True)
    assert made.owner == other.tree.session
    with pytest.raises(Exists):
        await create(tree, "/a", ephemeral=True)
    await other.tree.close()
    await until_gone(tree, "/a")
    assert (await create(tree, "/a", ephemeral=True)).owner == tree.session


async def test_an_ephemeral_document_cannot_have_children(tree: Tree) -> None:
    await create(tree, "/a/x", ephemeral=True)
    with pytest.raises(Invalid, match="/a/x/y"):
        await create(tree, "/a/x/y")


# What is too large


@pytest.mark.parametrize("there", [True, False])
async def test_a_document_over_the_limit_is_refused_without_harm(bench: Bench, tree: Tree, there: bool) -> None:
    large = b"x" * (MAX_DOCUMENT_BYTES + 1)
    await create(tree, "/a/x")
    with pytest.raises(Invalid, match=r"/a/. must have at most 524288 bytes; got 524289 bytes\."):
        await tree.commit([SetNode("/a/x", large, 0) if there else CreateNode("/a/y", large)])
    assert set(await tree.load()) == {"/a/x"}
    assert tree.link is Link.CONNECTED
    assert bench.clients[0].links == []


async def test_documents_that_are_too_large_together_are_refused_without_harm(bench: Bench, tree: Tree) -> None:
    with pytest.raises(Invalid, match="A transaction"):
        await tree.commit([CreateNode(f"/a/{number}", b"x" * 400_000) for number in range(3)])
    assert await tree.load() == {}
    assert bench.clients[0].links == []


async def test_the_largest_documents_are_accepted(bench: Bench, tree: Tree) -> None:
    await create(tree, "/a/x", b"x" * MAX_DOCUMENT_BYTES)
    await tree.commit([CreateNode(f"/a/{number}", b"x" * 100_000) for number in range(9)])
    assert sum(len(node.data) for node in (await tree.load()).values()) == MAX_DOCUMENT_BYTES + 900_000
    assert bench.clients[0].links == []


# Hints


async def test_another_tree_gets_hints_of_a_create_a_set_and_a_delete(tree: Tree, other: Client) -> None:
    made = await create(tree, "/a/x")
    await other.hinted("/a/x")
    assert await other.tree.get("/a/x") == made
    (changed,) = await tree.commit([SetNode("/a/x", b"2", 0)])
    await other.hinted("/a/x")
    assert await other.tree.get("/a/x") == changed
    await tree.commit([DeleteNode("/a/x", 1)])
    await other.hinted("/a/x")
    assert await other.tree.get("/a/x") is None


async def test_a_tree_gets_hints_of_its_own_changes(bench: Bench, tree: Tree) -> None:
    await create(tree, "/a/x")
    await bench.clients[0].hinted("/a/x")


async def test_hints_of_all_earlier_changes_arrive_before_sync_returns(tree: Tree, other: Client) -> None:
    for number in range(20):
        await tree.commit([CreateNode(f"/a/x{number}", b"1")])
        await other.tree.sync()
        assert f"/a/x{number}" in other.hints


async def test_hints_arrive_for_every_depth(tree: Tree, other: Client) -> None:
    await create(tree, "/a/b/c/d")
    await other.hinted("/a/b/c/d")
    await tree.commit([SetNode("/a/b/c/d", b"2", 0)])
    await other.hinted("/a/b/c/d")


async def test_hints_arrive_for_every_change(tree: Tree, other: Client) -> None:
    await create(tree, "/a/x")
    await other.hinted("/a/x")
    for version in range(20):
        await tree.commit([SetNode("/a/x", b"%d" % version, version)])
        await other.hinted("/a/x")


async def test_unwatched_documents_give_no_hints(bench: Bench, tree: Tree, other: Client) -> None:
    third = bench.client()
    await third.open("/a", "/ab")
    await create(tree, "/ab/x")
    await third.hinted("/ab/x")
    await create(tree, "/a/x")
    await other.hinted("/a/x")
    assert "/ab/x" not in other.hints


async def test_a_root_can_be_watched_later_and_twice(bench: Bench, tree: Tree, other: Client) -> None:
    made = await create(tree, "/late/x")
    assert await other.tree.load() == {}
    await other.tree.watch(["/late"])
    await other.tree.watch(["/late", "/a"])
    assert await other.tree.load() == {"/late/x": made}
    await tree.commit([SetNode("/late/x", b"2", 0)])
    await other.hinted("/late/x")


# Reading all, and order


async def test_load_returns_everything_below_all_roots(bench: Bench, tree: Tree) -> None:
    paths = [f"/a/{number}" for number in range(150)]
    paths += [f"{path}/report" for path in paths[:70]] + [f"{path}/report/deep" for path in paths[:3]]
    made = await tree.commit([CreateNode(path, path.encode()) for path in paths])
    more = await tree.commit([CreateNode(f"/b/{number}", b"b") for number in range(10)])
    await create(tree, "/c/x")
    third = await bench.client().open("/a", "/b")
    expected = dict(zip(paths, made, strict=True)) | {f"/b/{number}": node for number, node in enumerate(more)}
    assert await third.load() == expected


async def test_load_and_sync_see_writes_of_others(tree: Tree, other: Client) -> None:
    for version in range(20):
        if version:
            await tree.commit([SetNode("/a/x", b"%d" % version, version - 1)])
        else:
            await create(tree, "/a/x")
        assert (await other.tree.load())["/a/x"].version == version
    await tree.commit([SetNode("/a/x", b"last", 19)])
    await other.tree.sync()
    assert (await other.tree.get("/a/x") or Node(b"", 0, 0, 0)).data == b"last"


async def test_load_tolerates_concurrent_creations_and_deletions(tree: Tree, other: Client) -> None:
    kept = [CreateNode(f"/a/kept{number}", b"1") for number in range(300)]
    await tree.commit(kept)

    async def churn() -> None:
        for number in itertools.count():
            await tree.commit([CreateNode(f"/a/{number}", b"1"), CreateNode(f"/a/{number}/y", b"1")])
            await tree.commit([DeleteNode(f"/a/{number}/y", 0), DeleteNode(f"/a/{number}", 0)])

    churning = asyncio.create_task(churn())
    for _ in range(10):
        assert {change.path for change in kept} <= set(await other.tree.load())
    churning.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await churning


async def test_results_come_in_the_order_of_the_calls(tree: Tree) -> None:
    done: list[int] = []

    async def record(number: int, call: Awaitable[object]) -> None:
        await call
        done.append(number)

    calls: list[Callable[[int], Awaitable[object]]] = [
        lambda number: tree.commit([CreateNode(f"/a/{number}", b"1")]),
        lambda number: tree.get(f"/a/{number}"),
        lambda number: tree.commit([CreateNode(f"/a/{number}", b"1"), CreateNode(f"/a/{number}/x", b"1")]),
        lambda number: tree.sync(),
    ]
    await asyncio.gather(*(record(number, calls[number % 4](number)) for number in range(400)))
    assert done == list(range(400))


async def test_reads_never_return_an_older_state(tree: Tree, other: Client) -> None:
    seen: list[int] = []

    async def look(each: Tree) -> None:
        node = await each.get("/a/x")
        seen.append(node.serial if node else 0)

    await create(tree, "/a/x")
    looks = []
    for version in range(50):
        looks += [asyncio.create_task(look(tree)) for _ in range(3)]
        if version % 2:
            await other.tree.commit([SetNode("/a/x", b"2", version)])
        else:
            await tree.commit([SetNode("/a/x", b"2", version)])
    await asyncio.gather(*looks)
    assert seen == sorted(seen)


# Sessions


async def test_an_ephemeral_document_names_its_session(tree: Tree, other: Client) -> None:
    made = await create(tree, "/a/x", ephemeral=True)
    assert made.owner == tree.session != 0
    (changed,) = await tree.commit([SetNode("/a/x", b"2", 0)])
    assert changed and changed.owner == tree.session
    await other.tree.sync()
    assert await other.tree.get("/a/x") == changed
    assert other.tree.session not in (0, tree.session)


async def until_gone(tree: Tree, path: str) -> None:
    async with asyncio.timeout(20):
        while await tree.get(path):  # noqa: ASYNC110 (asks the server)
            await asyncio.sleep(0.005)


async def test_an_ephemeral_document_is_removed_when_its_session_closes(
    bench: Bench, tree: Tree, other: Client
) -> None:
    await create(tree, "/a/x", ephemeral=True)
    await create(tree, "/a/y")
    await tree.close()
    await other.hinted("/a/x")
    assert set(await other.tree.load()) == {"/a/y"}


async def test_an_expired_session_is_replaced(bench: Bench, tree: Tree, other: Client) -> None:
    client = bench.clients[0]
    await create(tree, "/a/x", ephemeral=True)
    session = tree.session
    await other.hinted("/a/x")
    await bench.expire(tree)
    await other.hinted("/a/x")
    assert await other.tree.get("/a/x") is None
    await until(lambda: Link.LOST in client.links and client.links[-1] is Link.CONNECTED)
    assert tree.link is Link.CONNECTED
    assert tree.session not in (0, session)
    assert other.links == []
    client.hints.clear()
    assert (await create(tree, "/a/x", ephemeral=True)).owner == tree.session
    await client.hinted("/a/x")


# Faults


async def test_calls_fail_soon_while_the_server_is_down_and_work_again_afterwards(bench: Bench, tree: Tree) -> None:
    client = bench.clients[0]
    kept = await create(tree, "/a/x", ephemeral=True)
    session = tree.session
    await bench.stop()
    try:
        await until(lambda: client.links == [Link.SUSPENDED])
        calls = [
            tree.get("/a/x"),
            tree.load(),
            tree.sync(),
            tree.commit([CreateNode("/a/y", b"1")]),
            tree.watch(["/b"]),
        ]
        for call in calls:
            async with asyncio.timeout(DEADLINE + MARGIN):
                with pytest.raises(StoreUnavailable, match=r"not connected\."):
                    await call
    finally:
        await bench.start()
    await until(lambda: client.links == [Link.SUSPENDED, Link.CONNECTED])
    assert tree.session == session
    assert await tree.load() == {"/a/x": kept}
    second = await bench.client().open("/a")
    client.hints.clear()
    made = await create(second, "/a/z")
    await client.hinted("/a/z")
    assert await tree.get("/a/z") == made


async def test_pending_calls_end_soon_when_the_server_goes_down(bench: Bench, tree: Tree) -> None:
    calls = [asyncio.create_task(create(tree, f"/a/{number}")) for number in range(50)]
    await asyncio.sleep(0)
    stopping = asyncio.create_task(bench.stop())
    try:
        async with asyncio.timeout(DEADLINE + MARGIN):
            results = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        await stopping
        await bench.start()
    await until(lambda: tree.link is Link.CONNECTED)
    assert all(isinstance(result, Node | StoreUnavailable) for result in results)
    there = await tree.load()
    for number, result in enumerate(results):
        assert isinstance(result, StoreUnavailable) or there[f"/a/{number}"] == result


async def test_a_canceled_call_does_no_harm(bench: Bench, tree: Tree) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    await create(tree, "/a/x")
    for turns in range(6):
        calls = [tree.get("/a/x"), tree.load(), tree.sync(), create(tree, "/a/x"), create(tree, f"/a/q/{turns}")]
        tasks = [asyncio.create_task(call) for call in calls]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await tree.get("/a/x")
    await tree.close()
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_nothing_is_left_after_close(bench: Bench) -> None:
    threads = set(threading.enumerate())
    client = bench.client()
    tree = await client.open("/a")
    await create(tree, "/a/x")
    await tree.close()
    await tree.close()
    await until(lambda: set(threading.enumerate()) <= threads)
    assert tree.link is Link.LOST
    with pytest.raises(StoreUnavailable):
        await tree.get("/a/x")
    assert client.links == []


async def test_closing_before_opening_does_nothing(bench: Bench) -> None:
    await bench.tree().close()


# ZooKeeper alone


async def longest_stall() -> float:
    """Measure the longest blocking of the event loop until canceled."""
    longest, last = 0.0, time.monotonic()
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
    return longest


async def test_opening_fails_with_a_sentence_if_no_server_answers() -> None:
    threads = set(threading.enumerate())
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hosts = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StoreUnavailable, match=rf"ZooKeeper at {hosts} did not answer within 0\.3 s\."):
            await ZooKeeperTree(hosts, opening=0.3).open(lambda path: None, lambda link: None)
        await until(lambda: set(threading.enumerate()) <= threads)


@pytest.mark.alone
async def test_a_hanging_server_is_abandoned_within_the_deadline(zookeeper: Server) -> None:
    threads = set(threading.enumerate())
    client = Client(ZooKeeperTree(zookeeper.hosts, chroot=f"/test/{uuid.uuid4()}", deadline=0.5))
    tree = await client.open("/a")
    stalls = asyncio.create_task(longest_stall())
    zookeeper.pause()
    try:
        # So many bytes that they fill the connection, and so many requests after them that kazoo's queue grows.
        calls = [tree.load(), tree.sync(), *(create(tree, f"/a/{number}", b"x" * 500_000) for number in range(30))]
        calls += [tree.get("/a/x") for _ in range(1000)]
        async with asyncio.timeout(0.5 + MARGIN):
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert {str(result) for result in results} == {f"ZooKeeper at {zookeeper.hosts} did not answer within 0.5 s."}
        async with asyncio.timeout(1.0 + MARGIN):
            await tree.close()
        await until(lambda: set(threading.enumerate()) <= threads, seconds=1)
    finally:
        zookeeper.resume()
    stalls.cancel()
    assert await stalls < 0.4


async def test_with_a_password_no_other_client_reads_or_writes(zookeeper: Server) -> None:
    chroot = f"/test/{uuid.uuid4()}"
    async with contextlib.AsyncExitStack() as stack:

        async def connect(**options: str) -> Tree:
            client = Client(ZooKeeperTree(zookeeper.hosts, chroot=chroot, **options))  # type: ignore[arg-type]
            stack.push_async_callback(client.tree.close)
            await client.tree.open(client.hints.append, client.links.append)
            return client.tree

        owner = await connect(username="pvc", password="secret")
        await owner.watch(["/a"])
        made = await create(owner, "/a/x/y")
        assert await (await connect(username="pvc", password="secret")).get("/a/x/y") == made
        for stranger in [await connect(), await connect(username="pvc", password="wrong")]:
            with pytest.raises(StoreUnavailable, match="access denied"):
                await stranger.get("/a/x/y")
            with pytest.raises(StoreUnavailable, match="access denied"):
                await stranger.commit([CreateNode("/a/z", b"1")])
            with pytest.raises(StoreUnavailable, match="access denied"):
                await stranger.commit([SetNode("/a/x/y", b"1", 0)])


@pytest.mark.parametrize("chroot", ["", "/made/by/others"])
async def test_with_a_password_the_root_is_closed_too(tmp_path: Path, chroot: str) -> None:
    with zookeeper_server(tmp_path / "server") as server:
        before = ZooKeeperTree(server.hosts, chroot=chroot)  # without a password, it leaves the root open
        await before.open(lambda path: None, lambda link: None)
        owner = ZooKeeperTree(server.hosts, chroot=chroot, username="pvc", password="secret")
        await owner.open(lambda path: None, lambda link: None)
        try:
            await create(owner, "/schema")
            for change in (CreateNode("/mine", b"1"), DeleteNode("/schema", 0)):
                with pytest.raises(StoreUnavailable, match="access denied"):
                    await before.commit([change])
        finally:
            await owner.close()
            await before.close()


async def test_a_root_that_others_use_stays_open(tmp_path: Path) -> None:
    with zookeeper_server(tmp_path / "server") as server:
        other = ZooKeeperTree(server.hosts)
        await other.open(lambda path: None, lambda link: None)
        owner = ZooKeeperTree(server.hosts, username="pvc", password="secret")
        try:
            await create(other, "/theirs")
            await owner.open(lambda path: None, lambda link: None)
            await create(other, "/theirs-too")
        finally:
            await owner.close()
            await other.close()


async def test_a_server_that_lags_behind_catches_up_before_it_answers(ensemble: list[Server]) -> None:
    follower, other, leader = sorted(ensemble, key=lambda server: server.mode() == "leader")
    assert leader.mode() == "leader"
    reader = Client(ZooKeeperTree(follower.hosts, chroot="/behind", deadline=10.0))
    writer = Client(ZooKeeperTree(other.hosts, chroot="/behind", deadline=10.0))
    try:
        await reader.open("/a")
        await writer.open("/a")
        for _ in range(30):
            await reader.tree.sync()
            follower.pause()
            try:
                made = await create(writer.tree, "/a/x")
                loading = asyncio.create_task(reader.tree.load())
                await asyncio.sleep(0.01)  # the request is on its way before the server goes on
            finally:
                follower.resume()
            assert await loading == {"/a/x": made}
            await writer.tree.commit([DeleteNode("/a/x", 0)])
    finally:
        await reader.tree.close()
        await writer.tree.close()


async def test_writes_work_again_after_the_leader_is_killed(ensemble: list[Server]) -> None:
    hosts = ",".join(server.hosts for server in ensemble)
    client = Client(ZooKeeperTree(hosts, chroot="/leader"))
    tree = await client.open("/a")
    try:
        kept = await create(tree, "/a/x", ephemeral=True)
        (leader,) = [server for server in ensemble if server.mode() == "leader"]
        await asyncio.to_thread(leader.stop, signal.SIGKILL)
        async with asyncio.timeout(15):
            for number in itertools.count():
                with contextlib.suppress(StoreUnavailable):
                    made = await create(tree, f"/a/{number}")
                    break
                await asyncio.sleep(0.05)
            await until(lambda: tree.link is Link.CONNECTED)
        loaded = await tree.load()
        assert loaded["/a/x"] == kept
        assert loaded[f"/a/{number}"] == made
    finally:
        await tree.close()
