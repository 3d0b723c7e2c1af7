"""KeyedLocks: locks within a process, one for each key that several tasks contend for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from pvcd.errors import Changed


@dataclass
class _Lock:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    holder: asyncio.Task[object] | None = None
    users: int = 0


class KeyedLocks:
    """Locks by path, first come, first served: `refuse_others` keeps other tasks from overtaking those that wait."""

    def __init__(self) -> None:
        self._locks: dict[str, _Lock] = {}

    @contextlib.asynccontextmanager
    async def hold(self, path: str) -> AsyncIterator[None]:
        """Hold the lock of a path until the block ends."""
        entry = self._locks.setdefault(path, _Lock())
        entry.users += 1
        try:
            async with entry.lock:
                entry.holder = asyncio.current_task()
                try:
                    yield
                finally:
                    entry.holder = None
        finally:
            entry.users -= 1
            if not entry.users:
                del self._locks[path]

    def refuse_others(self, paths: Iterable[str]) -> None:
        """Raise `Changed` for the first path that another task holds or waits for."""
        for path in paths if self._locks else ():
            entry = self._locks.get(path)
            if entry and entry.holder is not asyncio.current_task():
                raise Changed(path)
