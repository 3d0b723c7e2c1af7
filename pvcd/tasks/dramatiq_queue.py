"""The task queue: Dramatiq in Redis.

It has no middleware: nothing is sent again after a failure (as with `max_retries=0`), and nothing is limited in time. A
message may be lost, come twice or come late, because a worker that gets one looks in the store first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, Future
from uuid import UUID

import dramatiq
from dramatiq.broker import Broker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import DramatiqError
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from pvcd.tasks.queue import Attend

log = logging.getLogger(__name__)
QUEUE = "tasks"
ACTOR = "attend"
DEADLINE_SECONDS = 2.0
LOOK_MILLISECONDS = 250
STOP_MILLISECONDS = 5000
SILENCE_SECONDS = 60.0


class DramatiqQueue:
    """Messages with the ids of tasks in one Redis."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(
            url, socket_timeout=DEADLINE_SECONDS, socket_connect_timeout=DEADLINE_SECONDS, retry=Retry(NoBackoff(), 0)
        )
        make: Callable[..., Broker] = RedisBroker
        self._broker = make(client=self._redis, middleware=[], namespace="pvcd")
        self._sending: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Wait for messages that are being sent, and close the connections."""
        await asyncio.gather(*self._sending)
        self._redis.close()

    def wake(self, id: UUID) -> None:
        """Send a message in the background."""
        sending = asyncio.ensure_future(asyncio.to_thread(self._send, id))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    def _send(self, id: UUID) -> None:
        message: dramatiq.Message[None] = dramatiq.Message(
            queue_name=QUEUE, actor_name=ACTOR, args=(str(id),), kwargs={}, options={}
        )
        try:
            self._broker.enqueue(message)
        except (RedisError, DramatiqError) as error:
            log.warning("Redis did not answer: task %s waits until a worker looks in the store: %s", id, error)

    @contextlib.asynccontextmanager
    async def listen(self, attend: Attend, threads: int) -> AsyncIterator[None]:
        """Run Dramatiq's worker: each of its threads hands an id to `attend` in this event loop, and waits for it."""
        loop = asyncio.get_running_loop()

        def act(id: str) -> None:
            waiting: Future[None] = asyncio.run_coroutine_threadsafe(_attend(attend, id), loop)
            with contextlib.suppress(CancelledError):
                waiting.result()

        dramatiq.actor(broker=self._broker, actor_name=ACTOR, queue_name=QUEUE)(act)
        worker = dramatiq.Worker(self._broker, worker_threads=threads, worker_timeout=LOOK_MILLISECONDS)
        _quieten()
        worker.start()
        try:
            yield
        finally:
            with contextlib.suppress(RedisError, DramatiqError):  # its threads end with the process
                await asyncio.to_thread(worker.stop, STOP_MILLISECONDS)


async def _attend(attend: Attend, id: str) -> None:
    await attend(UUID(id))


def _quieten() -> None:
    logging.getLogger("dramatiq").setLevel(logging.WARNING)
    for queue in (QUEUE, f"{QUEUE}.DQ"):
        logging.getLogger(f"dramatiq.worker.ConsumerThread({queue})").addFilter(_briefly)


class _Briefly(logging.Filter):
    """Lets Dramatiq log once a minute that Redis is away, instead of every few seconds with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, RedisError):
            record.msg, record.args, record.exc_info = f"{record.getMessage()} {error}", None, None
        if record.created < self._next:
            return False
        self._next = record.created + SILENCE_SECONDS
        return True


_briefly = _Briefly()
