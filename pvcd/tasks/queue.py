"""The queue that wakes task workers: it carries the ids of tasks and may lose them, because the store is the truth.

Behind the door is Dramatiq (dramatiq_queue.py), or in simulations nothing, as if Redis were away.
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
        """Let some worker attend to a task at once. Return at once, and never raise."""

    def listen(self, attend: Attend, threads: int) -> AbstractAsyncContextManager[None]:
        """Call `attend` with the id of each task that arrives, in so many threads, until the block ends."""


TASK_QUEUE: ComponentKey[TaskQueue] = ComponentKey("task-queue")


class NoQueue:
    """A queue that wakes no worker: they find the tasks in the store."""

    def wake(self, id: UUID) -> None:
        """Do nothing."""

    @contextlib.asynccontextmanager
    async def listen(self, attend: Attend, threads: int) -> AsyncIterator[None]:
        """Call nothing."""
        yield
