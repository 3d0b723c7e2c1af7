"""The tree in ZooKeeper: the only importer of kazoo, with `persistent_watch.py` and `zookeeper_errors.py`.

kazoo runs on threads. Its callbacks only wake the event loop, where all else happens, in the order in which the server
sent them, answers and events alike, because one thread reads the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from kazoo.exceptions import NoAuthError, NodeExistsError, NoNodeError
from kazoo.protocol.serialization import (
    CheckVersion,
    Create,
    Delete,
    Exists,
    GetACL,
    GetChildren,
    GetData,
    SetACL,
    SetData,
    Sync,
)
from kazoo.protocol.states import KazooState, ZnodeStat
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl

from pvcd.errors import PvcdError, StoreUnavailable
from pvcd.store.persistent_watch import AddWatch, Commit, ReadMany, WatchingClient
from pvcd.store.tree import (
    CheckNode,
    CreateNode,
    DeleteNode,
    Link,
    Node,
    NodeChange,
    SetNode,
    parents_of,
    refuse_unfit,
)
from pvcd.store.zookeeper_errors import Refusal, failure, failure_of, refused

_RETRY = {"max_tries": -1, "delay": 0.1, "backoff": 1.5, "max_delay": 1.0}
"""How kazoo tries to reconnect. Its own backoff grows to a minute, in which sessions are lost without need."""

_BATCH_READS = 64
"""Reads in one request of `load`."""
_WINDOW_REQUESTS = 3
"""Requests of `load` in flight: enough that neither side waits, few enough that other calls do not queue for long."""

_ATTEMPTS = 5
"""Times that a transaction is sent again because parents came or went."""
_EPHEMERAL = 1

log = logging.getLogger(__name__)
Take = Callable[[asyncio.Future[Any], Any], None]


def _fulfil(future: asyncio.Future[Any], result: object) -> None:
    """Hand over a result, unless its future was cancelled."""
    if not future.done():
        future.set_result(result)


class ZooKeeperTree:
    """A `Tree` in a ZooKeeper ensemble."""

    def __init__(
        self,
        hosts: str,
        *,
        chroot: str = "",
        session_timeout: float = 10.0,
        deadline: float = 1.0,
        opening: float = 10.0,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self.link = Link.LOST
        self.session = 0
        self._hosts = hosts
        self._chroot = chroot.rstrip("/")
        self._deadline = deadline
        self._opening = opening
        self._roots: dict[str, None] = {}
        self._writing: Counter[str] = Counter()
        self._overheard: set[str] = set()
        self._options: dict[str, Any] = {"hosts": hosts, "timeout": session_timeout, "connection_retry": _RETRY}
        self._acl = OPEN_ACL_UNSAFE
        if username is not None and password is not None:
            self._options["auth_data"] = [("digest", f"{username}:{password}")]
            self._acl = [make_digest_acl(username, password, all=True)]
        self._client: WatchingClient | None = None
        self._settling: asyncio.Task[None] | None = None

    # The session

    async def open(self, on_change: Callable[[str], None], on_link: Callable[[Link], None]) -> None:
        """Connect and wait until the chroot exists; see `Tree.open`."""
        self._loop = asyncio.get_running_loop()
        self._on_change, self._on_link = on_change, on_link
        self._opened = asyncio.Event()
        self._opening_error: PvcdError = self._silent(self._opening)
        client = self._client = WatchingClient(partial(self._wake, self._hint), **self._options)
        client.add_listener(lambda state: self._wake(self._state_changed, client, state, client.client_id))
        client.start_async()
        try:
            async with asyncio.timeout(self._opening):
                await self._opened.wait()
        except TimeoutError:
            raise self._opening_error from None
        finally:
            if not self._opened.is_set():
                await self.close()

    async def close(self) -> None:
        """End the session, without waiting long for a server that does not answer."""
        client, self._client = self._client, None
        if client is None:
            return
        self.link = Link.LOST
        if self._settling:
            self._settling.cancel()
        ended = asyncio.Event()
        client.handler.spawn(client.shut, partial(self._wake, ended.set))
        for hasten in (
            client.drop,
            lambda: log.warning("ZooKeeper at %s: closing takes long", self._hosts),
        ):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._deadline):
                    await ended.wait()
                return
            hasten()

    def _wake(self, act: Callable[..., None], *arguments: object) -> None:
        """Call a function in the event loop: the bridge from kazoo's threads."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(act, *arguments)

    def _state_changed(self, client: WatchingClient, state: str, identity: tuple[int, bytes] | None) -> None:
        """Take over the state of the connection; it counts as connected only once the watches stand."""
        if client is not self._client:
            return
        if self._settling:
            self._settling.cancel()
        if state != KazooState.CONNECTED:
            if self._opened.is_set():
                self.link = Link(state.lower())
                self._on_link(self.link)
        elif identity:
            self._settling = self._loop.create_task(self._settle(identity[0]))

    async def _settle(self, session: int) -> None:
        """Create the chroot if need be, set the watches again, and report the connection."""
        while True:
            try:
                await self._make([*parents_of(self._chroot), self._chroot] if self._chroot else [])
                if self._acl is not OPEN_ACL_UNSAFE:
                    await self._close_root()
                await self._ask(*(AddWatch(self._full(root)) for root in self._roots))
                break
            except PvcdError as error:
                self._opening_error = error
                await asyncio.sleep(0.1)  # if the connection broke, this task is about to be cancelled
        self.session, self.link = session, Link.CONNECTED
        if self._opened.is_set():
            self._on_link(Link.CONNECTED)
        self._opened.set()

    async def _close_root(self) -> None:
        """Let only us add and remove what is directly below the chroot, unless someone has restricted that already.

        Without a chroot, a root where others have anything stays open: they could not work any more.
        """
        root = self._chroot or "/"
        try:
            ((acl, _),) = await self._ask(GetACL(root))
            if acl == OPEN_ACL_UNSAFE and (self._chroot or await self._is_alone()):
                await self._ask(SetACL(root, self._acl, -1))
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, NoAuthError):  # another user's; the first request will say so
                raise

    async def _is_alone(self) -> bool:
        """Return whether everything at the root of ZooKeeper is ours."""
        (names,) = await self._ask(GetChildren("/", None))
        answers = await self._ask(*(GetACL(f"/{name}") for name in names if name != "zookeeper"))
        return all(answer is not None and answer[0] == self._acl for answer in answers)

    def _hint(self, path: str) -> None:
        """Report a change at a path, unless the link does not stand: everything is loaded anew once it does."""
        if self._writing[path]:
            self._overheard.add(path)
        elif self.link is Link.CONNECTED:
            self._on_change(path.removeprefix(self._chroot))

    # Reading

    async def watch(self, roots: Sequence[str]) -> None:
        """Set one lasting watch for each root; see `Tree.watch`."""
        self._must_be_connected()
        self._roots.update(dict.fromkeys(roots))
        await self._make([self._full(root) for root in roots])
        await self._ask(*(AddWatch(self._full(root)) for root in roots))

    async def sync(self) -> None:
        """Let the server that this connection uses catch up with its leader."""
        self._must_be_connected()
        await self._ask(Sync(self._chroot or "/"))

    async def get(self, path: str) -> Node | None:
        """Return one document, or None."""
        self._must_be_connected()
        ((answer,),) = await self._ask(ReadMany([GetData(self._full(path), None)]))
        return self._node(answer)

    async def load(self) -> dict[str, Node]:
        """Return every document at and below the roots; see `Tree.load`."""
        await self.sync()
        return {path: node async for path, answer in self._walk() if (node := self._node(answer))}

    async def empty(self) -> list[str]:
        """Return what is below the roots and holds nothing; see `Tree.empty`."""
        return [path async for path, (data, stat) in self._walk() if not data and not stat.numChildren]

    async def _walk(self) -> AsyncIterator[tuple[str, Any]]:
        """Read everything at and below the roots, a batch of reads per request."""
        reads = deque(GetData(self._full(root), None) for root in self._roots)
        sent: deque[tuple[list[Any], asyncio.Future[Any]]] = deque()
        while reads or sent:
            while reads and len(sent) < _WINDOW_REQUESTS:
                batch = [reads.popleft() for _ in range(min(_BATCH_READS, len(reads)))]
                sent.append((batch, self._send(ReadMany(batch))))
            batch, future = sent.popleft()
            for read, answer in zip(batch, await self._answer(future), strict=True):
                if isinstance(answer, list):
                    reads.extend(GetData(f"{read.path}/{name}", None) for name in answer)
                elif isinstance(answer, tuple):
                    if answer[1].numChildren:
                        reads.append(GetChildren(read.path, None))
                    yield read.path.removeprefix(self._chroot), answer
                else:
                    self._node(answer)  # raises, unless it was removed meanwhile

    def _node(self, answer: Any) -> Node | None:
        """Return the document in the answer to a read, or None; raise if the read failed."""
        match answer:
            case (bytes(data), ZnodeStat() as stat) if data:
                return Node(data, stat.version, stat.mzxid, stat.ephemeralOwner)
            case (bytes(), ZnodeStat()) | NoNodeError():
                return None
        raise failure(self._hosts, answer)

    # Writing

    async def commit(self, changes: Sequence[NodeChange]) -> list[Node | None]:
        """Send one transaction, and again if a create lacks parents or hits an empty document; see `Tree.commit`."""
        refuse_unfit(changes)
        self._must_be_connected()
        if not changes:
            return []
        outcome = await self._transact(changes, {})
        created = [change.path for change in changes if isinstance(change, CreateNode)]
        for _ in range(_ATTEMPTS):  # others may make or remove empty parents at any time
            if not isinstance(outcome, Refusal) or not isinstance(outcome.change, CreateNode):
                break
            empty, missing = await self._find_way(created, {change.path for change in changes})
            if outcome.change.path in set(created) - empty.keys() and not isinstance(outcome.reason, NoNodeError):
                break
            outcome = await self._transact(changes, empty, missing)
        if isinstance(outcome, Refusal):
            raise refused(self._hosts, outcome)
        return outcome

    async def _transact(
        self, changes: Sequence[NodeChange], empty: Mapping[str, int], missing: Sequence[str] = ()
    ) -> list[Node | None] | Refusal:
        """Send the changes, after missing parents; `empty` has the versions of empty documents that creates replace."""
        session = self.session
        whole = [*(CreateNode(path, b"") for path in missing), *changes]
        steps = [(change, request) for change in whole for request in self._requests(change, empty)]
        serial, results = await self._answer(self._write([request for _, request in steps]))
        if failed := failure_of(results):
            return Refusal(steps[failed[0]][0], failed[1])
        nodes: list[Node | None] = []
        for (change, request), result in list(zip(steps, results, strict=True))[len(missing) :]:
            if isinstance(change, CreateNode | SetNode) and isinstance(result, ZnodeStat):
                nodes.append(Node(change.data, result.version, result.mzxid, result.ephemeralOwner))
            elif isinstance(change, CreateNode) and isinstance(request, Create):
                nodes.append(Node(change.data, 0, serial, session if change.ephemeral else 0))
            elif not isinstance(change, CreateNode):
                nodes.append(None)
        return nodes

    def _requests(self, change: NodeChange, empty: Mapping[str, int]) -> list[Any]:
        """Return the requests for a change: one, or two where an ephemeral document replaces an empty one."""
        path = self._full(change.path)
        match change:
            case CreateNode(_, data, ephemeral):
                version = empty.get(change.path)
                if version is not None and not ephemeral:
                    return [SetData(path, data, version)]
                way = [] if version is None else [Delete(path, version)]
                return [*way, Create(path, data, self._acl, _EPHEMERAL if ephemeral else 0)]
            case SetNode(_, data, version):
                return [SetData(path, data, version)]
            case DeleteNode(_, version):
                return [Delete(path, version)]
            case CheckNode(_, version):
                return [CheckVersion(path, version)]

    async def _find_way(self, created: Sequence[str], named: set[str]) -> tuple[dict[str, int], list[str]]:
        """Return the versions of documents to create that exist without data, and the missing parents, except named."""
        parents = sorted({parent for path in created for parent in parents_of(path)} - named)
        stats = await self._ask(*(Exists(self._full(path), None) for path in (*created, *parents)))
        empty = {path: stat.version for path, stat in zip(created, stats, strict=False) if stat and not stat.dataLength}
        return empty, [path for path, stat in zip(parents, stats[len(created) :], strict=True) if stat is None]

    async def _make(self, paths: Sequence[str]) -> None:
        """Create the missing ones of these documents (full paths, parents first) without data."""
        stats = await self._ask(*(Exists(path, None) for path in paths))
        while missing := [path for path, stat in zip(paths, stats, strict=True) if stat is None]:
            ((_, results),) = await self._ask(Commit([Create(path, b"", self._acl, 0) for path in missing]))
            failed = failure_of(results)
            if failed and not isinstance(failed[1], NodeExistsError):
                raise refused(self._hosts, Refusal(CreateNode(missing[failed[0]], b""), failed[1]))
            stats = await self._ask(*(Exists(path, None) for path in paths))

    # Asking

    def _full(self, path: str) -> str:
        """Return the path in ZooKeeper."""
        return self._chroot + path

    def _must_be_connected(self) -> None:
        """Fail at once where kazoo would queue the request."""
        if self.link is not Link.CONNECTED:
            raise StoreUnavailable(f"Cannot use ZooKeeper at {self._hosts}: not connected.")

    async def _ask(self, *requests: object) -> list[Any]:
        """Issue requests together and return their answers."""
        futures = [self._send(request) for request in requests]
        return [await self._answer(future) for future in futures]

    def _send(self, request: object, take: Take = _fulfil) -> asyncio.Future[Any]:
        """Issue a request. Its future gets the answer or the exception as a value, so that it may be left alone."""
        if self._client is None or not self._client.connected:
            raise StoreUnavailable(f"Cannot use ZooKeeper at {self._hosts}: not connected.")
        future = self._loop.create_future()
        self._client.send(request, partial(self._wake, take, future))
        return future

    def _write(self, requests: Sequence[Any]) -> asyncio.Future[Any]:
        """Issue a transaction. Events about its documents that come before its answer are part of the answer.

        Answers and events come in the order of the server, so no later event is ignored with them.
        """
        paths = {request.path for request in requests}
        future = self._send(Commit(requests), partial(self._written, paths))
        self._writing.update(paths)
        return future

    def _written(self, paths: set[str], future: asyncio.Future[Any], result: Any) -> None:
        """Hand over the answer; if it is no success, or its future is cancelled, report the events held back."""
        self._writing -= Counter(paths)
        taken = not future.done() and isinstance(result, tuple) and failure_of(result[1]) is None
        overheard = {path for path in paths & self._overheard if not self._writing[path]}
        self._overheard -= overheard
        for path in () if taken else sorted(overheard):
            self._hint(path)
        _fulfil(future, result)

    async def _answer(self, future: asyncio.Future[Any]) -> Any:
        """Return ZooKeeper's answer, or raise when the deadline passes."""
        try:
            async with asyncio.timeout(self._deadline):
                result = await future
        except TimeoutError:
            raise self._silent(self._deadline) from None
        if isinstance(result, Exception):
            raise failure(self._hosts, result) from result
        return result

    def _silent(self, seconds: float) -> StoreUnavailable:
        return StoreUnavailable(f"ZooKeeper at {self._hosts} did not answer within {seconds:g} s.")
