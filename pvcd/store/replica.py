"""The declared records in memory: reads never leave the process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from pvcd.records import Record
from pvcd.store.tree import Node

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)
Subscriber = Callable[[str, Record | None, Record | None], None]


class Replica:
    """Every record of the declared types as last read; subscribers are called at each change with (path, old, new)."""

    def __init__(self, types: Iterable[type[Record]]) -> None:
        self.stale_since: float | None = None
        self._types: dict[str, list[type[Record]]] = {}
        self._records: dict[type[Record], dict[str, Any]] = {}
        for record_type in types:
            self._types.setdefault(record_type.root, []).append(record_type)
            self._records[record_type] = {}
        self._subscribers: list[Subscriber] = []
        self._touched: set[str] | None = None

    @property
    def roots(self) -> list[str]:
        """The top-level paths that the declared records live under."""
        return sorted(self._types)

    def paths(self) -> list[str]:
        """Return the paths of all records."""
        return [path for records in self._records.values() for path in records]

    def all(self, record_type: type[R]) -> Mapping[str, R]:
        """Return the records of a type by path: a live view, not to be kept over an await."""
        return self._records[record_type]

    def knows(self, record_type: type[Record]) -> bool:
        """Return whether it is a declared type."""
        return record_type in self._records

    def find(self, path: str) -> Record | None:
        """Return the record at a path."""
        for record_type in self._types_at(path):
            return self._records[record_type].get(path)
        return None

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call a function at every change from now on; return what ends this. Subscribers must return at once."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[set[str]]:
        """Collect the paths that are applied or removed within the block."""
        touched = self._touched = set()
        try:
            yield touched
        finally:
            self._touched = None

    def apply(self, path: str, node: Node | None) -> None:
        """Take over what was read at a path; an older reading never replaces a newer one."""
        if self._touched is not None:
            self._touched.add(path)
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
                self._notify(path, old, new)

    def removed(self, path: str, serial: int) -> None:
        """Take over that this process removed the document that was written by transaction `serial`."""
        if self._touched is not None:
            self._touched.add(path)
        current = self.find(path)
        if current is not None and current.serial <= serial:
            self.apply(path, None)

    def _types_at(self, path: str) -> Iterable[type[Record]]:
        root = "/" + path.split("/", 2)[1]
        return (record_type for record_type in self._types.get(root, ()) if record_type.owns(path))

    def _notify(self, path: str, old: Record | None, new: Record | None) -> None:
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
        log.error("%s in the store is not a valid %s and is ignored: %s", path, record_type.__name__, reason)
        return None
    if record.path != path:
        log.error("%s in the store is ignored: its fields belong at %s", path, record.path)
        return None
    return record
