"""The door to the store: a tree of small documents with versions, transactions, ephemeral nodes and change events.

Two stand behind it: `zookeeper.py`, and `memory.py` for tests and simulation. Both pass `tests/contract/test_tree.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from pvcd.errors import Invalid

MAX_DOCUMENT_BYTES = 512 * 1024
"""One value over ZooKeeper's own limit would drop the whole connection, so larger ones are refused far below it."""

MAX_COMMIT_BYTES = 960 * 1024
"""All changes of one transaction together, for the same reason: ZooKeeper takes 1 MiB in one request."""

_OVERHEAD_BYTES = 128
"""The most that a change takes besides its path and data: its kind, version and owner."""


class Node(NamedTuple):
    """One document as it was read."""

    data: bytes
    version: int
    """Counts the changes of this document since it was created."""
    serial: int
    """The number of the transaction that wrote it: newer is greater, over the whole tree."""
    owner: int
    """The session that an ephemeral document belongs to, or 0."""


@dataclass(frozen=True, slots=True)
class CreateNode:
    """Create a document that is not there yet."""

    path: str
    data: bytes
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class SetNode:
    """Replace the document of this version."""

    path: str
    data: bytes
    version: int


@dataclass(frozen=True, slots=True)
class DeleteNode:
    """Remove the document of this version."""

    path: str
    version: int


@dataclass(frozen=True, slots=True)
class CheckNode:
    """Change nothing, but fail the transaction unless the document has this version."""

    path: str
    version: int


NodeChange = CreateNode | SetNode | DeleteNode | CheckNode


class Link(StrEnum):
    """The state of the connection."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    """No server answers; the session may still be alive."""
    LOST = "lost"
    """The session is over: its ephemeral documents are gone. A new one is being opened."""


class Tree(Protocol):
    """The door. Every call has a deadline of its own and raises `StoreUnavailable` when it passes.

    Results are delivered in the order of the session, so a caller that applies each one as it comes never goes back in
    time. The listeners are called in the event loop.
    """

    link: Link
    session: int
    """The number of the session, 0 before the first."""

    async def open(self, on_change: Callable[[str], None], on_link: Callable[[Link], None]) -> None:
        """Connect; return when connected, or raise `StoreUnavailable` when that takes too long.

        `on_change(path)` says that the document at a path at or under a watched root may have changed (created, set
        or removed, by any client): a hint to read it again, sent at least once per change while connected. `on_link` is
        called at each change of `link` after this call has returned. After a reconnection nothing is known of what was
        missed: `on_link(CONNECTED)` is called once the watches stand again, and the caller must `load` anew."""

    async def close(self) -> None:
        """End the session at once (its ephemeral documents go) and release everything. Twice is fine."""

    async def watch(self, roots: Sequence[str]) -> None:
        """Make sure that these top-level documents exist and report changes at and below them from now on."""

    async def load(self) -> dict[str, Node]:
        """Return every document at and below the watched roots, at least as new as any write that any client finished
        before the call. It is no snapshot: a change during the call may be in it or not, and is hinted, so read again
        each path that was hinted since the call."""

    async def empty(self) -> list[str]:
        """Return the paths below the watched roots, and the roots, that have neither data nor children."""

    async def get(self, path: str) -> Node | None:
        """Return one document, or None. Empty ones, which were created as parents, count as none."""

    async def sync(self) -> None:
        """Return when this connection has seen every write that any client finished before the call."""

    async def commit(self, changes: Sequence[NodeChange]) -> list[Node | None]:
        """Make all of the changes or none. Return the new document for each create and set, and None for the others.

        Raises `Changed` (a version has moved, or the document to set, delete or check is gone), `Exists` (a document to
        create is there), `StoreUnavailable` (not done, or, after a lost connection, perhaps done), `Invalid` (a
        document over `MAX_DOCUMENT_BYTES` or changes over `MAX_COMMIT_BYTES`; nothing is sent). Deleting a document
        that has children raises `Changed`. Missing parents are created without data (in version 0), even while others
        remove them, but not those that the transaction itself names: without one it raises `Changed`. A create in the
        place of a document without data succeeds."""


def parents_of(path: str) -> list[str]:
    """Return the paths above a path, from the top."""
    names = path.split("/")[1:-1]
    return ["/" + "/".join(names[: end + 1]) for end in range(len(names))]


def refuse_unfit(changes: Sequence[NodeChange]) -> None:
    """Refuse changes that the store could not take, before anything is sent."""
    total = 0
    for change in changes:
        size = len(change.data) if isinstance(change, CreateNode | SetNode) else 0
        if size > MAX_DOCUMENT_BYTES:
            raise Invalid(f"{change.path} must have at most {MAX_DOCUMENT_BYTES} bytes; got {size} bytes.")
        if not isinstance(change, CreateNode) and change.version < 0:
            raise ValueError(f"{change.path} needs the version that was read, not {change.version}")
        total += size + len(change.path.encode()) + _OVERHEAD_BYTES
    if total > MAX_COMMIT_BYTES:
        raise Invalid(
            f"A transaction must have at most {MAX_COMMIT_BYTES} bytes; got {total} bytes. Change less at once."
        )
