"""Following: clients that read the log of a task as it grows. A process reads each new line once for all of them."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from uuid import UUID
from weakref import WeakValueDictionary

from pvcd.clock import Clock
from pvcd.declare.context import ComponentKey, Context
from pvcd.errors import Failed
from pvcd.tasks.logs import MAX_READ_LINES, LogLine, TaskLogs, parsed
from pvcd.tasks.records import Task

LOOK_SECONDS = 0.5
RECENT_LINES = 2 * MAX_READ_LINES
"""Lines of a log that are kept for those who follow it; a client that is further behind reads the log itself."""
READERS_BEHIND = 4
"""The most clients that read logs themselves at the same time."""


class LogFeeds:
    """The logs that are followed in this process, each with its last lines."""

    def __init__(self, logs: TaskLogs, clock: Clock) -> None:
        self._logs, self._clock = logs, clock
        self._feeds: WeakValueDictionary[UUID, _Feed] = WeakValueDictionary()  # each lives as long as its followers
        self._behind = asyncio.Semaphore(READERS_BEHIND)

    async def follow(self, id: UUID, after: str, is_over: Callable[[], bool]) -> AsyncIterator[LogLine]:
        """Yield the lines of a log after a position as they come, until its task is over and all are read.

        Raises `Failed` if the log cannot be read any more.
        """
        feed = self._feeds.get(id) or self._from(id, after)
        place = parsed(after)
        try:
            while True:
                if place < feed.begin:
                    async with self._behind:
                        lines = await self._logs.read(id, after)
                    if not lines:  # the feed begins after the end of the log, as its first follower asked
                        feed = self._from(id, after)
                        continue
                else:
                    lines = await feed.next(place, is_over)
                if not lines:
                    return
                for line in lines:
                    yield line
                after = lines[-1].position
                place = parsed(after)
        except Failed:
            if self._feeds.get(id) is feed:
                del self._feeds[id]  # the next follower tries again
            raise

    def _from(self, id: UUID, after: str) -> _Feed:
        """Return a feed that has all lines after a position."""
        feed = self._feeds.get(id)
        if feed is None or parsed(after) < feed.begin:
            feed = self._feeds[id] = _Feed(id, self._logs, self._clock, after)
        return feed


class _Feed:
    """The last lines of a log, all those after `begin`. Who needs more, while no one reads, reads for all."""

    def __init__(self, id: UUID, logs: TaskLogs, clock: Clock, after: str) -> None:
        self._id, self._logs, self._clock = id, logs, clock
        self.begin = parsed(after)
        self._end = after
        self._lines: list[LogLine] = []
        self._places: list[tuple[int, int]] = []
        self._reading = asyncio.Lock()
        self._failure: Failed | None = None
        self._is_complete = False

    async def next(self, place: tuple[int, int], is_over: Callable[[], bool]) -> list[LogLine]:
        """Wait for lines after a place and return them; none if there will be no more."""
        while True:
            first = bisect_right(self._places, place)
            if first < len(self._places):
                return self._lines[first : first + MAX_READ_LINES]
            end = self._end
            async with self._reading:
                if self._failure:
                    raise self._failure
                if self._is_complete:
                    return []
                if self._end == end:
                    await self._read(is_over)

    async def _read(self, is_over: Callable[[], bool]) -> None:
        over = is_over()  # before the log is read, as a task logs nothing once it is over
        try:
            lines = await self._logs.read(self._id, self._end)
        except Failed as error:
            self._failure = error
            raise
        if lines:
            self._add(lines)
        elif over:
            self._is_complete = True
        else:
            await self._clock.sleep(LOOK_SECONDS)

    def _add(self, lines: list[LogLine]) -> None:
        self._lines += lines
        self._places += [parsed(line.position) for line in lines]
        self._end = lines[-1].position
        surplus = len(self._lines) - RECENT_LINES
        if surplus > 0:
            self.begin = self._places[surplus - 1]
            del self._lines[:surplus], self._places[:surplus]


LOG_FEEDS: ComponentKey[LogFeeds] = ComponentKey("log-feeds")


def follow(context: Context, id: UUID, after: str = "") -> AsyncIterator[LogLine]:
    """Return the lines of a task's log as they come, until the task has ended and all are read.

    Raises `Invalid` for a wrong position; the iterator raises `Failed` if the log cannot be read any more.
    """
    parsed(after)

    def is_over() -> bool:
        task = context.store.get(Task, id)
        return task is None or task.is_over

    return context[LOG_FEEDS].follow(id, after, is_over)
