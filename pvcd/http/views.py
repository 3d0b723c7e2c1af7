"""Views: encoded replies about one kind of record, rendered again only after a change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from pydantic import BaseModel
from pydantic_core import to_json

from pvcd.http.matching import matcher
from pvcd.http.replies import Encoded
from pvcd.records import Record
from pvcd.store import Store

R = TypeVar("R", bound=Record)
V = TypeVar("V", bound=BaseModel)


class View(Generic[R, V]):
    """Every record of a type as the API shows it, in the order of their names.

    What `render` returns may depend only on the record and on the records below it in the store (such as its node's
    report): only their changes cause another rendering. A `limit` is matched to the `names`; the first gives the order.
    """

    def __init__(
        self, store: Store, record_type: type[R], render: Callable[[R], V], names: Callable[[R], tuple[str, ...]]
    ) -> None:
        self._store = store
        self._type = record_type
        self._render = render
        self._names = names
        self._depth = record_type.template.count("/") + 1
        self._encoded: dict[str, bytes] = {}
        self._sorted: list[tuple[tuple[str, ...], R]] | None = None
        self._all: Encoded[list[V]] | None = None
        self._end = store.subscribe(self._changed)

    def close(self) -> None:
        """Stop following the store."""
        self._end()

    def one(self, record: R) -> Encoded[list[V]]:
        """Return the reply about one record: a list of one."""
        return Encoded(b"[" + self._bytes(record) + b"]")

    def all(self) -> Encoded[list[V]]:
        """Return the reply about all records."""
        if self._all is None:
            self._all = _list([self._bytes(record) for _, record in self._rows()])
        return self._all

    def filter(self, limit: str | None, wanted: Callable[[R], bool]) -> Encoded[list[V]]:
        """Return the reply about the wanted records with a name that matches `limit`."""
        matches = matcher(limit)
        return _list([self._bytes(record) for names, record in self._rows() if matches(names) and wanted(record)])

    def _rows(self) -> list[tuple[tuple[str, ...], R]]:
        if self._sorted is None:
            rows = [(self._names(record), record) for record in self._store.all(self._type)]
            self._sorted = sorted(rows, key=lambda row: row[0])
        return self._sorted

    def _bytes(self, record: R) -> bytes:
        encoded = self._encoded.get(record.path)
        if encoded is None:
            encoded = self._encoded[record.path] = to_json(self._render(record))
        return encoded

    def _changed(self, path: str, old: Record | None, new: Record | None) -> None:
        if not path.startswith(self._type.root + "/"):
            return
        self._encoded.pop("/".join(path.split("/", self._depth)[: self._depth]), None)
        self._all = None
        if isinstance(new or old, self._type):
            self._sorted = None


def _list(items: list[bytes]) -> Encoded[list[V]]:
    return Encoded(b"[" + b",".join(items) + b"]")
