"""The logs of tasks in Redis: a stream per task. While Redis is away lines are dropped, which is logged once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from pvcd.clock import Clock
from pvcd.errors import Failed
from pvcd.tasks.logs import KEPT_SECONDS, MAX_BYTES, MAX_LINES, MAX_READ_LINES, LogLine, cut, parsed

log = logging.getLogger(__name__)
DEADLINE_SECONDS = 2.0
PAUSE_SECONDS = 5.0
"""Redis is not asked again for this time after it did not answer, so that a step that logs much is not held up."""
BATCH_LINES = 500
MAX_CONNECTIONS = 16
"""Connections to Redis; who finds none free waits for one, within the deadline."""


class RedisLogs:
    """The logs of all tasks in one Redis."""

    def __init__(self, url: str, clock: Clock) -> None:
        connections = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=DEADLINE_SECONDS,
            decode_responses=True,
            socket_timeout=DEADLINE_SECONDS,
            socket_connect_timeout=DEADLINE_SECONDS,
            retry=Retry(NoBackoff(), 1),  # on a new connection: old ones do not survive a restart of the server
        )
        self._redis: Any = Redis.from_pool(connections)
        self._clock = clock
        self._away = False
        self._pause_ends = 0.0

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def append(self, id: UUID, lines: Sequence[str]) -> None:
        """Add lines, unless Redis is away."""
        if self._away and self._clock.monotonic() < self._pause_ends:
            return
        kept = lines[-MAX_LINES:]
        try:
            for start in range(0, len(kept), BATCH_LINES):
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await self._add(_key(id), kept[start : start + BATCH_LINES])
        except (RedisError, OSError, TimeoutError) as error:
            if not self._away:
                log.warning("Redis did not answer: lines of task logs are lost until it does: %s", error)
            self._away, self._pause_ends = True, self._clock.monotonic() + PAUSE_SECONDS
            return
        if self._away:
            log.info("Redis answers again: task logs are kept")
        self._away = False

    async def read(self, id: UUID, after: str = "", count: int = MAX_READ_LINES) -> list[LogLine]:
        """Return the first lines after a position."""
        parsed(after)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                entries = await self._redis.xrange(_key(id), min=f"({after}" if after else "-", count=count)
        except (RedisError, OSError, TimeoutError) as error:
            raise Failed("Cannot read the log of the task: Redis did not answer.", code="redis-unavailable") from error
        return [LogLine(position, parsed(position)[0] / 1000, entry["text"]) for position, entry in entries]

    async def _add(self, key: str, lines: Sequence[str]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for line in lines:
                pipeline.xadd(key, {"text": cut(line)}, maxlen=MAX_LINES)
            pipeline.expire(key, KEPT_SECONDS)
            pipeline.memory_usage(key)
            size = (await pipeline.execute())[-1]
        if (size or 0) > MAX_BYTES:
            await self._redis.xtrim(key, maxlen=await self._redis.xlen(key) // 2)


def _key(id: UUID) -> str:
    return f"pvcd:task-log:{id}"
