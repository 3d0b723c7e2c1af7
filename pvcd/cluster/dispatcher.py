"""The runner of handlers: one reconcile at a time per handler and record; merged, retried, repeated at intervals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from pvcd.declare.context import Context
from pvcd.declare.handlers import Handler, Requeue
from pvcd.errors import PvcdError
from pvcd.records import Record

log = logging.getLogger(__name__)
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, DOUBLINGS = 0.5, 60.0, 10
MAX_RECONCILES = 32
"""Reconciles of one scope at the same time, without those of handlers that take long."""


class _Item:
    """One handler and one record: whether a reconcile is due, what runs, and how often it has failed."""

    def __init__(self) -> None:
        self.due = False
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.Task[None] | None = None
        self.failures = 0
        self.removed: Record | None = None


class HandlerRunner:
    """Runs the handlers of a scope while this process may act."""

    _context: Context

    def __init__(self, handlers: Iterable[Handler], resync: float) -> None:
        self._handlers = tuple(handlers)
        self._resync = resync
        self._items: dict[tuple[Handler, str], _Item] = {}
        self._may_act = asyncio.Event()
        self._may_act.set()
        self._room = asyncio.Semaphore(MAX_RECONCILES)
        self._unsubscribe: Callable[[], None] = lambda: None
        self._resyncing: asyncio.Task[None] | None = None

    def start(self, context: Context) -> None:
        """Reconcile every record, and each one that changes from now on; unless paused, begin at once."""
        self._context = context
        self._unsubscribe = context.store.subscribe(self._changed)
        self._resyncing = asyncio.ensure_future(self._resync_all())
        self.wake_all()

    def pause(self) -> None:
        """Begin no further reconcile: this process may not act just now."""
        self._may_act.clear()

    def resume(self) -> None:
        """Go on, and reconcile every record."""
        self._may_act.set()
        if self._resyncing:
            self.wake_all()

    async def stop(self) -> None:
        """Cancel all reconciles; nothing wakes a handler before the next start."""
        self._unsubscribe()
        self._unsubscribe = lambda: None
        tasks = [self._resyncing, *(task for item in self._items.values() for task in (item.task, item.timer))]
        self._resyncing = None
        self._items.clear()
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def wake(self, record: Record) -> None:
        """Reconcile a record because something outside the store has happened to what it describes."""
        if self._resyncing is None:
            return  # not started: `start` wakes all
        for handler in self._handlers:
            if isinstance(record, handler.record_type) and not handler.gone:
                self._enqueue(handler, record.path)

    def wake_all(self) -> None:
        """Reconcile every record."""
        for handler in self._handlers:
            if not handler.gone:
                for record in self._context.store.all(handler.record_type):
                    self._enqueue(handler, record.path)

    @property
    def idle(self) -> bool:
        """True if no reconcile is running or due at once."""
        return not any(item.task for item in self._items.values())

    def _changed(self, path: str, old: Record | None, new: Record | None) -> None:
        for handler in self._handlers:
            if handler.gone and new is None and isinstance(old, handler.record_type):
                self._enqueue(handler, path, removed=old)
            elif not handler.gone and isinstance(new, handler.record_type):
                self._enqueue(handler, path)

    def _enqueue(self, handler: Handler, path: str, removed: Record | None = None) -> None:
        item = self._items.setdefault((handler, path), _Item())
        item.due, item.removed = True, removed
        if item.timer:
            item.timer.cancel()
            item.timer = None
        if item.task is None:
            item.task = asyncio.ensure_future(self._reconcile_while_due(handler, path, item))

    async def _reconcile_while_due(self, handler: Handler, path: str, item: _Item) -> None:
        delay: float | None = None
        try:
            while item.due:
                async with contextlib.nullcontext() if handler.takes_long else self._room:
                    await self._may_act.wait()
                    item.due = False
                    record = item.removed if handler.gone else self._context.store.find(path)
                    delay = await self._reconcile(handler, record, item) if record else None
        finally:
            item.task = None
        if delay is not None:
            item.timer = asyncio.ensure_future(self._enqueue_later(handler, path, item, delay))
        else:
            self._items.pop((handler, path), None)

    async def _reconcile(self, handler: Handler, record: Record, item: _Item) -> float | None:
        """Call the handler; return the seconds until the next reconcile, or None if none is due."""
        try:
            wish = await handler.function(self._context, record)
        except Exception as error:
            item.failures += 1
            delay = min(FIRST_RETRY_SECONDS * 2.0 ** min(item.failures - 1, DOUBLINGS), LAST_RETRY_SECONDS)
            owner = self._context.declarations.owner(handler)
            if isinstance(error, PvcdError):
                log.warning("%s of %s: %s: %s (retry in %g s)", handler.name, owner, record.path, error, delay)
            else:
                log.exception("%s of %s failed at %s (retry in %g s)", handler.name, owner, record.path, delay)
            return delay
        item.failures = 0
        return wish.seconds if isinstance(wish, Requeue) else None

    async def _enqueue_later(self, handler: Handler, path: str, item: _Item, seconds: float) -> None:
        await self._context.clock.sleep(seconds)
        item.timer = None
        self._enqueue(handler, path, item.removed)

    async def _resync_all(self) -> None:
        while True:
            await self._context.clock.sleep(self._resync)
            self.wake_all()
