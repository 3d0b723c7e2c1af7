"""The queue that wakes workers: it carries the ids of tasks and may lose them, for the store is the truth.

Behind the door stands Dramatiq (dramatiq_queue.py); in simulations nothing, as if Redis were away.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from pvcd.declare.context import ComponentKey

Attend = Callable[[UUID], Awaitable[None]]


class TaskQueue(Protocol):
    """The door."""

    def wake(self, id: UUID) -> None:
        """Let some worker attend to a task at once. It returns at once too, and never raises."""

    def listen(self, attend: Attend, threads: int) -> AbstractAsyncContextManager[None]:
        """As long as the block lasts, `attend` to tasks that workers are woken for: so many side by side."""


TASK_QUEUE: ComponentKey[TaskQueue] = ComponentKey("task-queue")


class NoQueue:
    """Wakes nobody: workers find in the store what there is to do."""

    def wake(self, id: UUID) -> None:
        """Do nothing."""

    @contextlib.asynccontextmanager
    async def listen(self, attend: Attend, threads: int) -> AsyncIterator[None]:
        """Hear nothing."""
        yield
