"""The logs of tasks: a bounded number of lines each, kept outside the store, where they may be lost.

`context[TASK_LOGS]` is open in the API and in task workers. Behind the door is Redis (redis_logs.py), or `MemoryLogs`
for tests and simulation; both pass `tests/contract/test_task_logs.py`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from pvcd.clock import Clock
from pvcd.declare.context import ComponentKey
from pvcd.errors import Invalid

MAX_LINES = 10_000
MAX_LINE_BYTES = 4 * 1024
MAX_BYTES = 8 * 1024 * 1024
"""Limits of each log, which may be exceeded a little: the oldest lines are dropped."""
KEPT_SECONDS = 7 * 86400
"""A log is kept for this time after its last line."""
MAX_READ_LINES = 1000
"""The most lines that one call of `read` returns."""
_POSITION = re.compile(r"(\d{1,19})-(\d{1,19})")


class LogLine(NamedTuple):
    """One line of a task's log."""

    position: str
    """Its place in the log, from where reading can go on."""
    time: float
    text: str


class TaskLogs(Protocol):
    """The door."""

    async def append(self, id: UUID, lines: Sequence[str]) -> None:
        """Add lines, each cut to `MAX_LINE_BYTES` bytes. It never raises: lines that cannot be kept are dropped."""

    async def read(self, id: UUID, after: str = "", count: int = MAX_READ_LINES) -> list[LogLine]:
        """Return the first lines after a position, or from the beginning; none if there is no log.

        Raises `Failed` if the log cannot be read, and `Invalid` for a wrong position."""


TASK_LOGS: ComponentKey[TaskLogs] = ComponentKey("task-logs")


def cut(line: str) -> str:
    """Return a line cut to the size that logs keep."""
    return line.encode(errors="replace")[:MAX_LINE_BYTES].decode(errors="ignore")


def parsed(position: str) -> tuple[int, int]:
    """Return a position in a form that can be compared; the empty one is before all lines."""
    match = _POSITION.fullmatch(position or "0-0")
    if not match:
        raise Invalid(f"after must be the position of a line; got {position!r:.60}.")
    return int(match[1]), int(match[2])


class MemoryLogs:
    """The task logs of a simulation."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logs: dict[UUID, deque[LogLine]] = {}
        self._count = 0

    async def append(self, id: UUID, lines: Sequence[str]) -> None:
        """Add lines."""
        now = self._clock.time()
        log = self._logs[id] = self._log(id)
        for line in lines:
            self._count += 1
            log.append(LogLine(f"{now * 1000:.0f}-{self._count}", now, cut(line)))
        while sum(len(line.text.encode()) for line in log) > MAX_BYTES:
            log.popleft()

    async def read(self, id: UUID, after: str = "", count: int = MAX_READ_LINES) -> list[LogLine]:
        """Return the first lines after a position."""
        last = parsed(after)
        return [line for line in self._log(id) if parsed(line.position) > last][:count]

    def _log(self, id: UUID) -> deque[LogLine]:
        log = self._logs.get(id)
        if log and log[-1].time + KEPT_SECONDS > self._clock.time():
            return log
        return deque(maxlen=MAX_LINES)
