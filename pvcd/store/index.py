"""Index: a table about records that is kept up to date with the store.

class Readers(Index[Note]):
    follows = (Note,)

    def __init__(self) -> None:
        self._readers: dict[str, set[str]] = defaultdict(set)

    def add(self, record: Note) -> None:
        self._readers[record.book].add(record.reader)

    def remove(self, record: Note) -> None:
        self._readers[record.book].discard(record.reader)

COMPONENT = Component(READERS, Readers.open, roles=(Role.API,), in_memory=True)
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Generic, Protocol, Self, TypeVar

from pvcd.records import Record
from pvcd.store import Store

R = TypeVar("R", bound=Record)


class HasStore(Protocol):
    """The part of a context that an index needs."""

    @property
    def store(self) -> Store:
        """The records that the index is about."""


class Index(Generic[R]):
    """The base of tables about records of the types in `follows`; `__init__` takes nothing and makes an empty one."""

    follows: tuple[type[R], ...]

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, context: HasStore) -> AsyncIterator[Self]:
        """Fill an index from the store and follow each change until the block ends."""
        index = cls()
        for record_type in cls.follows:
            for record in context.store.all(record_type):
                index.add(record)
        end = context.store.subscribe(index.changed)
        try:
            yield index
        finally:
            end()

    def add(self, record: R) -> None:
        """Take up a record that was created, or changed to this."""
        raise NotImplementedError

    def remove(self, record: R) -> None:
        """Drop a record that was removed, or was this before a change."""
        raise NotImplementedError

    def changed(self, path: str, old: Record | None, new: Record | None) -> None:
        """Follow one change of the store."""
        if isinstance(old, self.follows):
            self.remove(old)
        if isinstance(new, self.follows):
            self.add(new)
