"""Time and sleep behind one door, so that a simulation can own them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """The time, as the code may read it and wait for it."""

    def time(self) -> float:
        """Return seconds since 1970, for people and records."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards, for durations."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's own time."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class VirtualClock:
    """Time for tests and simulations: it stands still between calls of `advance`."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + max(seconds, 0.0), next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: wake each sleeper at its time, in order, and let the tasks that follow come to rest."""
        end = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not future.done():
                future.set_result(None)
            await settle()
        self._now = max(self._now, end)  # a concurrent `advance` may have let more time pass


async def settle(turns: int = 50) -> None:
    """Yield to all ready tasks, so that chains of awaits that wait for nothing outside come to rest."""
    for _ in range(turns):
        await asyncio.sleep(0)
