"""The tree in memory, for tests and simulation: `MemoryTree`s share a `MemoryServer`, which fails on demand.

It behaves like `zookeeper.py`, except that nothing takes time, and a session ends only at `MemoryServer.expire`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence

from pvcd.errors import Changed, Exists, Invalid, StoreUnavailable
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


class MemoryServer:
    """The documents and sessions of an ensemble, and the faults that a test asks for."""

    def __init__(self) -> None:
        self.documents: dict[str, Node] = {}
        self.serial = 0
        self._running = True
        self._numbers = itertools.count(1)
        self._sessions: set[int] = set()
        self._trees: list[MemoryTree] = []
        self._cut: set[MemoryTree] = set()

    def stop(self) -> None:
        """Answer no tree any more; sessions and documents stay."""
        self._running = False
        self._notify_links()

    def start(self) -> None:
        """Answer again."""
        self._running = True
        self._notify_links()

    def cut(self, tree: MemoryTree) -> None:
        """Keep one tree from reaching the server."""
        self._cut.add(tree)
        self._notify_links()

    def heal(self, tree: MemoryTree) -> None:
        """Let a tree reach the server again."""
        self._cut.discard(tree)
        self._notify_links()

    def expire(self, session: int) -> None:
        """End a session as after its timeout: its ephemeral documents go."""
        self._sessions.discard(session)
        draft = _Draft(self, session)
        for path in [path for path, node in self.documents.items() if node.owner == session]:
            draft.remove(path)
        self._publish(draft)
        self._notify_links()

    def reaches(self, tree: MemoryTree) -> bool:
        """Return whether requests of this tree arrive."""
        return self._running and tree not in self._cut

    def lives(self, session: int) -> bool:
        """Return whether a session has not ended yet."""
        return session in self._sessions

    def admit(self, tree: MemoryTree) -> int:
        """Begin a session and return its number."""
        if tree not in self._trees:
            self._trees.append(tree)
        session = next(self._numbers)
        self._sessions.add(session)
        return session

    def dismiss(self, tree: MemoryTree) -> None:
        """End the session of a tree; if the tree does not reach the server, the session stays until it expires."""
        reached = self.reaches(tree)
        self._trees.remove(tree)
        self._cut.discard(tree)
        if reached:
            self.expire(tree.session)

    def commit(self, changes: Iterable[NodeChange], session: int) -> list[Node | None]:
        """Make all of the changes or none."""
        changes = list(changes)
        draft = _Draft(self, session)
        draft.named = {change.path for change in changes}
        results = [draft.apply(change) for change in changes]
        self._publish(draft)
        return results

    def make(self, paths: Iterable[str]) -> None:
        """Create these documents without data where they are missing."""
        draft = _Draft(self, 0)
        for path in paths:
            draft.make(path)
        self._publish(draft)

    def _publish(self, draft: _Draft) -> None:
        """Take over a successful transaction, and notify the trees that watch."""
        if draft.touched:
            self.documents, self.serial = draft.documents, draft.serial
            for tree in self._trees:
                tree.hear(draft.touched)

    def _notify_links(self) -> None:
        for tree in self._trees:
            tree.feel(self.reaches(tree))


class _Draft:
    """A transaction on a copy of the documents, which is dropped if one of its changes fails."""

    def __init__(self, server: MemoryServer, session: int) -> None:
        self.documents = dict(server.documents)
        self.serial = server.serial + 1
        self.touched: list[str] = []
        self.named: set[str] = set()
        """The paths of its changes, which are not made as parents."""
        self._session = session

    def apply(self, change: NodeChange) -> Node | None:
        """Make one change; return the document that it wrote."""
        match change:
            case CreateNode():
                return self._create(change)
            case SetNode(path, data, version):
                old = self._read(path, version)
                return self._put(path, Node(data, version + 1, self.serial, old.owner))
            case DeleteNode(path, version):
                self._read(path, version)
                if self._has_children(path):
                    raise Changed(path)
                self.remove(path)
            case CheckNode(path, version):
                self._read(path, version)
        return None

    def remove(self, path: str) -> None:
        """Remove a document."""
        del self.documents[path]
        self.touched.append(path)

    def make(self, path: str) -> None:
        """Create a document without data, and its missing parents, unless it is there."""
        names = path.split("/")[1:]
        for end in range(len(names)):
            step = "/" + "/".join(names[: end + 1])
            if step not in self.documents:
                self._put(step, Node(b"", 0, self.serial, 0))

    def _create(self, change: CreateNode) -> Node:
        path, owner = change.path, self._session if change.ephemeral else 0
        parent = path.rpartition("/")[0]
        if parent:
            if self.named.intersection(parents_of(path)) - self.documents.keys():
                raise Changed(path)
            self.make(parent)
            if self.documents[parent].owner:
                raise Invalid(f"{path!r} cannot be created: its parent is ephemeral.")
        old = self.documents.get(path)
        if old is None:
            return self._put(path, Node(change.data, 0, self.serial, owner))
        if old.data:
            raise Exists(path)
        if not owner:
            return self._put(path, Node(change.data, old.version + 1, self.serial, 0))
        if self._has_children(path):
            raise Changed(path)
        return self._put(path, Node(change.data, 0, self.serial, owner))

    def _put(self, path: str, node: Node) -> Node:
        self.documents[path] = node
        self.touched.append(path)
        return node

    def _read(self, path: str, version: int) -> Node:
        node = self.documents.get(path)
        if node is None or node.version != version:
            raise Changed(path)
        return node

    def _has_children(self, path: str) -> bool:
        return any(other.startswith(path + "/") for other in self.documents)


class MemoryTree:
    """A `Tree` on a `MemoryServer`."""

    def __init__(self, server: MemoryServer) -> None:
        self.link = Link.LOST
        self.session = 0
        self._server = server
        self._roots: dict[str, None] = {}
        self._returning: asyncio.Handle | None = None

    async def open(self, on_change: Callable[[str], None], on_link: Callable[[Link], None]) -> None:
        """Begin a session; fail at once if the server cannot be reached."""
        if not self._server.reaches(self):
            raise StoreUnavailable("The store in memory did not answer.")
        self._loop = asyncio.get_running_loop()
        self._on_change, self._on_link = on_change, on_link
        self.session, self.link = self._server.admit(self), Link.CONNECTED
        await asyncio.sleep(0)

    async def close(self) -> None:
        """End the session."""
        if self.session:
            self._stay_away()
            self.link = Link.LOST
            self._server.dismiss(self)
            self.session = 0
        await asyncio.sleep(0)

    async def watch(self, roots: Sequence[str]) -> None:
        """Create the roots, and be notified of changes at and below them."""
        self._must_be_connected()
        self._server.make(roots)
        self._roots.update(dict.fromkeys(roots))
        await asyncio.sleep(0)

    async def load(self) -> dict[str, Node]:
        """Return every document at and below the roots."""
        self._must_be_connected()
        found = {path: node for path, node in self._server.documents.items() if node.data and self._watches(path)}
        await asyncio.sleep(0)
        return found

    async def empty(self) -> list[str]:
        """Return what is below the roots and holds nothing."""
        self._must_be_connected()
        documents = self._server.documents
        parents = {parent for path in documents for parent in parents_of(path)}
        await asyncio.sleep(0)
        return [
            path for path, node in documents.items() if not node.data and path not in parents and self._watches(path)
        ]

    async def get(self, path: str) -> Node | None:
        """Return one document, or None."""
        self._must_be_connected()
        node = self._server.documents.get(path)
        await asyncio.sleep(0)
        return node if node and node.data else None

    async def sync(self) -> None:
        """Return at once: there is one copy of everything, so nothing can lag."""
        self._must_be_connected()
        await asyncio.sleep(0)

    async def commit(self, changes: Sequence[NodeChange]) -> list[Node | None]:
        """Commit one transaction."""
        refuse_unfit(changes)
        self._must_be_connected()
        try:
            return self._server.commit(changes, self.session)
        finally:
            await asyncio.sleep(0)

    def hear(self, paths: Iterable[str]) -> None:
        """Take from the server that these paths changed; hint at them a little later, if the link stands then."""
        for path in filter(self._watches, paths):
            self._loop.call_soon(self._hint, path)

    def feel(self, reached: bool) -> None:
        """Take from the server whether it is reached: a loss counts at once, a return a little later."""
        if not reached:
            self._stay_away()
            if self.link is Link.CONNECTED:
                self._lose(Link.SUSPENDED)
        elif self.link is not Link.CONNECTED or not self._server.lives(self.session):
            if self.link is not Link.LOST and not self._server.lives(self.session):
                self._lose(Link.LOST)
            if self._returning is None:
                self._returning = self._loop.call_soon(self._return)

    def _lose(self, link: Link) -> None:
        self.link = link
        self._loop.call_soon(self._notify, link)

    def _return(self) -> None:
        self._returning = None
        if not self._server.lives(self.session):
            self.session = self._server.admit(self)
        self.link = Link.CONNECTED
        self._notify(Link.CONNECTED)

    def _stay_away(self) -> None:
        if self._returning:
            self._returning.cancel()
            self._returning = None

    def _notify(self, link: Link) -> None:
        if self.session:
            self._on_link(link)

    def _hint(self, path: str) -> None:
        if self.link is Link.CONNECTED:
            self._on_change(path)

    def _watches(self, path: str) -> bool:
        return any(path == root or path.startswith(root + "/") for root in self._roots)

    def _must_be_connected(self) -> None:
        if self.link is not Link.CONNECTED:
            raise StoreUnavailable("Cannot use the store in memory: not connected.")
