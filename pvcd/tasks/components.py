"""The components of tasks: Redis, or memory in simulations."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from weakref import WeakKeyDictionary, proxy

from pvcd.clock import Clock
from pvcd.declare.context import Component, Context, Role
from pvcd.tasks.following import LOG_FEEDS, LogFeeds
from pvcd.tasks.logs import TASK_LOGS, MemoryLogs, TaskLogs
from pvcd.tasks.queue import TASK_QUEUE, NoQueue, TaskQueue

_SIMULATIONS: WeakKeyDictionary[Clock, MemoryLogs] = WeakKeyDictionary()
"""Clock of a simulation -> its logs, which all of its processes share."""


@contextlib.asynccontextmanager
async def _simulated_logs(context: Context) -> AsyncIterator[TaskLogs]:
    yield _SIMULATIONS.setdefault(context.clock, MemoryLogs(proxy(context.clock)))


@contextlib.asynccontextmanager
async def _redis_logs(context: Context) -> AsyncIterator[TaskLogs]:
    from pvcd.tasks.redis_logs import RedisLogs

    async with contextlib.aclosing(RedisLogs(context.settings.redis.url, context.clock)) as logs:
        yield logs


@contextlib.asynccontextmanager
async def _log_feeds(context: Context) -> AsyncIterator[LogFeeds]:
    yield LogFeeds(context[TASK_LOGS], context.clock)


@contextlib.asynccontextmanager
async def _simulated_queue(context: Context) -> AsyncIterator[TaskQueue]:
    yield NoQueue()


@contextlib.asynccontextmanager
async def _dramatiq_queue(context: Context) -> AsyncIterator[TaskQueue]:
    from pvcd.tasks.dramatiq_queue import DramatiqQueue

    async with contextlib.aclosing(DramatiqQueue(context.settings.redis.url)) as queue:
        yield queue


COMPONENTS = (
    Component(TASK_LOGS, _redis_logs, roles=(Role.API, Role.WORKER), fake=_simulated_logs),
    Component(LOG_FEEDS, _log_feeds, roles=(Role.API,), needs=(TASK_LOGS,), fake=_log_feeds),
    Component(TASK_QUEUE, _dramatiq_queue, roles=(Role.API, Role.WORKER), fake=_simulated_queue),
)
