"""The declared records in memory, fed by the tree's change hints: reads never leave the process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from pvcd.records import Record
from pvcd.store.tree import Node, Tree

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)
Subscriber = Callable[[str, Record | None, Record | None], None]


class Replica:
    """Every record of the declared types as last seen; subscribers are told of each change as (path, old, new)."""

    def __init__(self, tree: Tree, types: Iterable[type[Record]]) -> None:
        self.stale_since: float | None = None
        self._tree = tree
        self._types: dict[str, list[type[Record]]] = {}
        self._records: dict[type[Record], dict[str, Any]] = {}
        for record_type in types:
            self._types.setdefault(record_type.root, []).append(record_type)
            self._records[record_type] = {}
        self._subscribers: list[Subscriber] = []
        self._hinted: set[str] | None = None
        self._reloading = asyncio.Lock()

    @property
    def roots(self) -> list[str]:
        """The top-level paths that the declared records live under."""
        return sorted(self._types)

    def all(self, record_type: type[R]) -> Mapping[str, R]:
        """The records of a type by path: a live view, not to be kept over an await."""
        return self._records[record_type]

    def knows(self, record_type: type[Record]) -> bool:
        """Whether it is a declared type."""
        return record_type in self._records

    def find(self, path: str) -> Record | None:
        """The record at a path."""
        for record_type in self._types_at(path):
            return self._records[record_type].get(path)
        return None

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Be told of every change from now on; call the result to end it. Subscribers must return at once."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    async def hint(self, path: str) -> None:
        """Something may have changed at a path: look."""
        if self._hinted is not None:
            self._hinted.add(path)
        self.apply(path, await self._tree.get(path))

    async def reload(self) -> None:
        """Take over the whole truth, without losing what is seen to change meanwhile."""
        async with self._reloading:
            hinted = self._hinted = set()
            try:
                nodes = await self._tree.load()
            finally:
                self._hinted = None
        known = [path for records in self._records.values() for path in records]
        for path, node in nodes.items():
            if path not in hinted:
                self.apply(path, node)
        for path in sorted(hinted.union(path for path in known if path not in nodes)):
            self.apply(path, await self._tree.get(path))

    def apply(self, path: str, node: Node | None) -> None:
        """Take over what was read at a path; a newer one is never replaced by an older."""
        for record_type in self._types_at(path):
            records = self._records[record_type]
            old: Record | None = records.get(path)
            if node is None:
                new = None
                records.pop(path, None)
            elif old is not None and old.serial >= node.serial:
                return
            else:
                new = _decode(record_type, path, node)
                if new is None:
                    return
                records[path] = new
            if old is not new:
                self._tell(path, old, new)

    def removed(self, path: str, serial: int) -> None:
        """Take over that we removed the document which was written by transaction `serial`."""
        if self._hinted is not None:
            self._hinted.add(path)
        current = self.find(path)
        if current is not None and current.serial <= serial:
            self.apply(path, None)

    def _types_at(self, path: str) -> Iterable[type[Record]]:
        root = "/" + path.split("/", 2)[1]
        return (record_type for record_type in self._types.get(root, ()) if record_type.owns(path))

    def _tell(self, path: str, old: Record | None, new: Record | None) -> None:
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(path, old, new)
            except Exception:
                log.exception("a subscriber failed at a change of %s", path)


def _decode(record_type: type[Record], path: str, node: Node) -> Record | None:
    try:
        record = record_type.decode(node.data, node.version, node.serial)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        log.error("%s in the store is no %s and is passed over: %s", path, record_type.__name__, reason)
        return None
    if record.path != path:
        log.error("%s in the store is passed over: it says that it is %s", path, record.path)
        return None
    return record
