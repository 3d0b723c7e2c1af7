"""Queues of writers within a process, one for each record that several of them change at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from pvcd.errors import Changed


@dataclass
class _Queue:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    holder: asyncio.Task[object] | None = None
    users: int = 0


class Queues:
    """First come, first served: while there is a queue for a record, nobody else of this process may write it."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    @contextlib.asynccontextmanager
    async def hold(self, path: str) -> AsyncIterator[None]:
        """Wait in the queue for the record at a path, and hold it until the block ends."""
        queue = self._queues.setdefault(path, _Queue())
        queue.users += 1
        try:
            async with queue.lock:
                queue.holder = asyncio.current_task()
                try:
                    yield
                finally:
                    queue.holder = None
        finally:
            queue.users -= 1
            if not queue.users:
                del self._queues[path]

    def refuse_others(self, paths: Iterable[str]) -> None:
        """Raise `Changed` for the first path that others queue for: whoever waits there would be overtaken."""
        for path in paths if self._queues else ():
            queue = self._queues.get(path)
            if queue and queue.holder is not asyncio.current_task():
                raise Changed(path)
