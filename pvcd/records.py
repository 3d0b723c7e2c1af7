"""Record: a pydantic model with a path in the store, where each record is one JSON document.

    class Note(Record, path="/notes/{name}"):
        name: Name
        text: str

`Note.at(name)` is the path of one, `note.path` its own, and `note.version` the version that was read, which `Put` and
`Delete` send back, so that no change of another writer is ever overwritten.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, StringConstraints

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=128)]

_FIELD = re.compile(r"\{(\w+)\}")


class Record(BaseModel):
    """One document of the store. Unknown fields are kept, so that an older daemon does not lose a newer one's."""

    model_config = ConfigDict(frozen=True, extra="allow")

    template: ClassVar[str] = ""
    root: ClassVar[str] = ""
    ephemeral: ClassVar[bool] = False
    key_fields: ClassVar[tuple[str, ...]] = ()
    _pattern: ClassVar[re.Pattern[str]]
    _version: int | None = PrivateAttr(default=None)
    _serial: int = PrivateAttr(default=0)
    _path: str | None = PrivateAttr(default=None)

    def __init_subclass__(cls, path: str = "", ephemeral: bool = False, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if path:
            if path.count("/") < 2:
                raise TypeError(
                    f"{cls.__name__}: its path needs two parts at least, such as '/notes/{{name}}', not {path!r}"
                )
            cls.template = path
            cls.ephemeral = ephemeral
            cls.key_fields = tuple(_FIELD.findall(path))
            cls.root = "/" + path.split("/")[1]
            cls._pattern = re.compile("^" + _FIELD.sub(r"(?P<\1>[^/]+)", path) + "$")

    @classmethod
    def __pydantic_init_subclass__(cls, **rest: Any) -> None:
        missing = [field for field in cls.key_fields if field not in cls.model_fields]
        if missing:
            raise TypeError(f"{cls.__name__}: its path {cls.template!r} names {missing[0]!r}: no such field")

    @classmethod
    def at(cls, *keys: object) -> str:
        """Return the path of the record with these keys, in the order of the path."""
        if len(keys) != len(cls.key_fields):
            raise TypeError(f"{cls.__name__}.at() takes {len(cls.key_fields)} keys: {cls.template}")
        texts = iter(map(str, keys))
        return _FIELD.sub(lambda _: next(texts), cls.template)

    @classmethod
    def owns(cls, path: str) -> bool:
        """Return whether a path is one of this type."""
        return cls._pattern.match(path) is not None

    @property
    def path(self) -> str:
        """The path of this record in the store."""
        if self._path is None:
            self._path = self.at(*(getattr(self, field) for field in self.key_fields))
        return self._path

    @property
    def version(self) -> int | None:
        """The version that was read, or None for a record that was never read from the store."""
        return self._version

    @property
    def serial(self) -> int:
        """The number of the transaction that wrote it (ZooKeeper's mzxid): newer is greater."""
        return self._serial

    def holds(self, values: Mapping[str, object]) -> bool:
        """Return whether the record has all of these values."""
        return all(getattr(self, name) == value for name, value in values.items())

    def changed(self, **values: Any) -> Self:
        """Return a validated copy with other values, which keeps the version that was read."""
        copy = type(self).model_validate(dict(self) | values)
        copy._version, copy._serial = self._version, self._serial
        return copy

    def encode(self) -> bytes:
        """Return the document as it is stored."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, data: bytes, version: int, serial: int) -> Self:
        """Return the record of a stored document."""
        record = cls.model_validate_json(data)
        record._version, record._serial = version, serial
        return record
