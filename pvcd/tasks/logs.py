"""The logs of tasks: a bounded number of lines each, kept outside the store, where they may be lost.

`context[TASK_LOGS]` is open in the API and in workers. Behind the door stands Redis (redis_logs.py), and `MemoryLogs`
for tests and simulation; both pass `tests/contract/test_task_logs.py`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from pvcd.clock import Clock
from pvcd.declare.context import ComponentKey, Context
from pvcd.errors import Invalid
from pvcd.tasks.records import Task

MAX_LINES = 10_000
MAX_LINE = 4 * 1024
MAX_BYTES = 8 * 1024 * 1024
"""Of each log: what is oldest goes first. The number and the size may be exceeded a little."""
KEPT_SECONDS = 7 * 86400
"""From the last line on."""
AT_ONCE = 1000
"""Lines that one reading returns at most."""
LOOK_SECONDS = 0.5
_POSITION = re.compile(r"(\d{1,19})-(\d{1,19})")


class LogLine(NamedTuple):
    """A line of a task's log."""

    position: str
    """Where it stands: to go on reading after it."""
    time: float
    text: str


class TaskLogs(Protocol):
    """The door."""

    async def append(self, id: UUID, lines: Sequence[str]) -> None:
        """Add lines, each cut to `MAX_LINE` bytes. They are dropped when that cannot be done; it never raises."""

    async def read(self, id: UUID, after: str = "", count: int = AT_ONCE) -> list[LogLine]:
        """The first lines after a position, or from the beginning. Of a log that is not there, none.

        Raises `Failed` when it cannot be read, and `Invalid` for what is no position."""


TASK_LOGS: ComponentKey[TaskLogs] = ComponentKey("task-logs")


async def follow(context: Context, id: UUID, after: str = "") -> AsyncIterator[LogLine]:
    """The lines of a task's log as they come, until the task is over and all have been read."""
    while True:
        task = context.store.get(Task, id)
        lines = await context[TASK_LOGS].read(id, after)
        for line in lines:
            yield line
            after = line.position
        if not lines:
            if task is None or task.is_over:
                return
            await context.clock.sleep(LOOK_SECONDS)


def cut(line: str) -> str:
    """A line as logs hold it."""
    return line.encode(errors="replace")[:MAX_LINE].decode(errors="ignore")


def parsed(position: str) -> tuple[int, int]:
    """A position as it is compared; nothing is before all lines."""
    match = _POSITION.fullmatch(position or "0-0")
    if not match:
        raise Invalid(f"{position!r:.60} is no position in a log: give that of a line.")
    return int(match[1]), int(match[2])


class MemoryLogs:
    """The logs of a simulation."""

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

    async def read(self, id: UUID, after: str = "", count: int = AT_ONCE) -> list[LogLine]:
        """The first lines after a position."""
        last = parsed(after)
        return [line for line in self._log(id) if parsed(line.position) > last][:count]

    def _log(self, id: UUID) -> deque[LogLine]:
        log = self._logs.get(id)
        if log and log[-1].time + KEPT_SECONDS > self._clock.time():
            return log
        return deque(maxlen=MAX_LINES)
