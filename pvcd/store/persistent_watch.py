"""Requests of ZooKeeper that kazoo lacks: lasting watches, many reads in one request, a transaction's number.

Part of the door in `zookeeper.py`, and used by nothing else.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from kazoo.client import KazooClient
from kazoo.exceptions import EXCEPTIONS, WriterNotClosedException
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.serialization import (
    GetChildren,
    GetData,
    MultiHeader,
    ReplyHeader,
    Transaction,
    int_struct,
    read_buffer,
    read_string,
    reply_header_struct,
    stat_struct,
    write_string,
)
from kazoo.protocol.states import WatchedEvent, ZnodeStat

_PERSISTENT_RECURSIVE = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AddWatch:
    """Report each change of a document and of all documents below it while the connection lasts."""

    type: ClassVar[int] = 106
    path: str

    def serialize(self) -> bytes:
        """Return the request's bytes."""
        return bytes(write_string(self.path) + int_struct.pack(_PERSISTENT_RECURSIVE))

    @classmethod
    def deserialize(cls, message: bytes, offset: int) -> bool:
        """Return that it is done, which is all that the answer says."""
        return True


@dataclass(frozen=True)
class ReadMany:
    """Several `GetData` and `GetChildren` in one request.

    The answers come in the same order: data and stat, a list of names, or the exception of that read.
    """

    type: ClassVar[int] = 22
    reads: Sequence[GetData | GetChildren]

    def serialize(self) -> bytes:
        """Return the request's bytes."""
        parts = [MultiHeader(read.type, False, -1).serialize() + read.serialize() for read in self.reads]
        return b"".join(parts) + bytes(MultiHeader(-1, True, -1).serialize())

    @classmethod
    def deserialize(cls, message: bytes, offset: int) -> list[Any]:
        """Return the answers from their bytes."""
        answers = []
        header, offset = MultiHeader.deserialize(message, offset)
        while not header.done:
            answer, offset = _ANSWERS[header.type](message, offset)
            answers.append(answer)
            header, offset = MultiHeader.deserialize(message, offset)
        return answers


def _data(message: bytes, offset: int) -> tuple[Any, int]:
    data, offset = read_buffer(message, offset)
    stat = ZnodeStat._make(stat_struct.unpack_from(message, offset))
    return (data or b"", stat), offset + stat_struct.size


def _names(message: bytes, offset: int) -> tuple[Any, int]:
    (count,) = int_struct.unpack_from(message, offset)
    offset += int_struct.size
    names = []
    for _ in range(count):
        name, offset = read_string(message, offset)
        names.append(name)
    return names, offset


def _error(message: bytes, offset: int) -> tuple[Any, int]:
    (code,) = int_struct.unpack_from(message, offset)
    return EXCEPTIONS[code](), offset + int_struct.size


_ANSWERS = {GetData.type: _data, GetChildren.type: _names, -1: _error}


class Commit(Transaction):  # type: ignore[misc]  # kazoo has no types
    """A transaction whose answer is its number (the mzxid of each document that it wrote) and the results.

    The result of a create is only its path; the number completes the new document.
    """

    @classmethod
    def deserialize(cls, message: bytes, offset: int) -> tuple[int, list[Any]]:
        """Return the answer from its bytes, which begin with the header that kazoo has read already."""
        header, _ = ReplyHeader.deserialize(message, offset - reply_header_struct.size)
        return header.zxid, super().deserialize(message, offset)


class _Bell:
    """Wakes kazoo's thread once for each request; replaces kazoo's socket pair.

    A socket pair is full after 278 requests that were not yet sent, and the next one would block our event loop. An
    eventfd counts without a limit.
    """

    def __init__(self) -> None:
        self._number = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._number

    def send(self, data: bytes) -> int:
        os.eventfd_write(self._number, len(data))
        return len(data)

    def recv(self, size: int) -> bytes:
        os.eventfd_read(self._number)
        return bytes(1)

    def close(self) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's threads, with a bell between ours and its own, and events delivered by the one that reads the connection.

    Answers are delivered there too, so that both come in the order in which the server sent them.
    """

    def create_socket_pair(self) -> tuple[_Bell, _Bell]:
        bell = _Bell()
        return bell, bell

    def dispatch_callback(self, callback: Any) -> None:
        callback.func(*callback.args)


class _Answer:
    """Passes the result, or the exception, on at once; replaces kazoo's AsyncResult."""

    def __init__(self, deliver: Callable[[Any], None]) -> None:
        self.set = self.set_exception = deliver


class _EveryPath:
    """One watcher for every path and event; replaces kazoo's table of watchers, each good for one event."""

    def __init__(self, watcher: Callable[[WatchedEvent], None]) -> None:
        self._watcher = watcher

    def pop(self, path: str, default: object) -> list[Callable[[WatchedEvent], None]]:
        return [self._watcher]


class WatchingClient(KazooClient):  # type: ignore[misc]
    """A KazooClient whose watches are all set with `AddWatch`.

    `on_event(path)` and the `deliver` of each request are called in the thread that reads the connection, in the order
    of the session: they must return at once.
    """

    def __init__(self, on_event: Callable[[str], None], **options: Any) -> None:
        self._on_event = on_event
        super().__init__(handler=_Handler(), **options)

    def _reset_watchers(self) -> None:
        self._child_watchers: dict[str, Any] = {}
        self._data_watchers = _EveryPath(lambda event: self._on_event(event.path))

    def send(self, request: object, deliver: Callable[[Any], None]) -> None:
        """Issue a request; `deliver` is called with the answer or an exception."""
        self._call(request, _Answer(deliver))

    def drop(self) -> None:
        """Break the connection, so that `shut` does not wait for a server that does not answer."""
        connection = self._connection._socket
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def shut(self, on_end: Callable[[], None]) -> None:
        """End the session and release everything. Blocks: run it in a thread of its own."""
        try:
            self.stop()
            self.close()
        except WriterNotClosedException:
            log.warning("the connection to ZooKeeper was not released: kazoo is still opening it")
        finally:
            on_end()
