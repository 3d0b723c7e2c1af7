"""Runs handlers: one run at a time for each handler and record; merges changes, retries failures, repeats all."""

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
FIRST_RETRY, LAST_RETRY, DOUBLINGS = 0.5, 60.0, 10
SIDE_BY_SIDE = 32


class _Turn:
    """The turns of one handler at one record."""

    def __init__(self) -> None:
        self.wanted = False
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
        self._turns: dict[tuple[Handler, str], _Turn] = {}
        self._may_act = asyncio.Event()
        self._may_act.set()
        self._room = asyncio.Semaphore(SIDE_BY_SIDE)
        self._unsubscribe: Callable[[], None] = lambda: None
        self._clockwork: asyncio.Task[None] | None = None

    def start(self, context: Context) -> None:
        """Follow every record there is, and each change from now on; unless paused, begin at once."""
        self._context = context
        self._unsubscribe = context.store.subscribe(self._changed)
        self._clockwork = asyncio.ensure_future(self._look_at_everything())
        self.wake_all()

    def pause(self) -> None:
        """Begin no further turn: this process may not act just now."""
        self._may_act.clear()

    def resume(self) -> None:
        """Go on, and look at everything again."""
        self._may_act.set()
        if self._clockwork:
            self.wake_all()

    async def stop(self) -> None:
        """End all turns; nothing wakes a handler before the next start."""
        self._unsubscribe()
        self._unsubscribe = lambda: None
        tasks = [self._clockwork, *(task for turn in self._turns.values() for task in (turn.task, turn.timer))]
        self._clockwork = None
        self._turns.clear()
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def wake(self, record: Record) -> None:
        """Something outside the store happened to what a record describes: give its handlers a turn."""
        if self._clockwork is None:
            return  # not started: start looks at everything
        for handler in self._handlers:
            if isinstance(record, handler.record_type) and not handler.gone:
                self._want(handler, record.path)

    def wake_all(self) -> None:
        """Give every record a turn."""
        for handler in self._handlers:
            if not handler.gone:
                for record in self._context.store.all(handler.record_type):
                    self._want(handler, record.path)

    @property
    def idle(self) -> bool:
        """Whether no turn is running or due at once."""
        return not any(turn.task for turn in self._turns.values())

    def _changed(self, path: str, old: Record | None, new: Record | None) -> None:
        for handler in self._handlers:
            if handler.gone and new is None and isinstance(old, handler.record_type):
                self._want(handler, path, removed=old)
            elif not handler.gone and isinstance(new, handler.record_type):
                self._want(handler, path)

    def _want(self, handler: Handler, path: str, removed: Record | None = None) -> None:
        turn = self._turns.setdefault((handler, path), _Turn())
        turn.wanted, turn.removed = True, removed
        if turn.timer:
            turn.timer.cancel()
            turn.timer = None
        if turn.task is None:
            turn.task = asyncio.ensure_future(self._take_turns(handler, path, turn))

    async def _take_turns(self, handler: Handler, path: str, turn: _Turn) -> None:
        again: float | None = None
        try:
            while turn.wanted:
                async with contextlib.nullcontext() if handler.takes_long else self._room:
                    await self._may_act.wait()
                    turn.wanted = False
                    record = turn.removed if handler.gone else self._context.store.find(path)
                    again = await self._one_turn(handler, record, turn) if record else None
        finally:
            turn.task = None
        if again is not None:
            turn.timer = asyncio.ensure_future(self._later(handler, path, turn, again))
        else:
            self._turns.pop((handler, path), None)

    async def _one_turn(self, handler: Handler, record: Record, turn: _Turn) -> float | None:
        """Call the handler; return after how many seconds it is due again."""
        try:
            again = await handler.function(self._context, record)
        except Exception as error:
            turn.failures += 1
            delay = min(FIRST_RETRY * 2.0 ** min(turn.failures - 1, DOUBLINGS), LAST_RETRY)
            owner = self._context.declarations.owner(handler)
            if isinstance(error, PvcdError):
                log.warning("%s of %s: %s: %s (again in %g s)", handler.name, owner, record.path, error, delay)
            else:
                log.exception("%s of %s failed at %s (again in %g s)", handler.name, owner, record.path, delay)
            return delay
        turn.failures = 0
        return again.seconds if isinstance(again, Requeue) else None

    async def _later(self, handler: Handler, path: str, turn: _Turn, seconds: float) -> None:
        await self._context.clock.sleep(seconds)
        turn.timer = None
        self._want(handler, path, turn.removed)

    async def _look_at_everything(self) -> None:
        while True:
            await self._context.clock.sleep(self._resync)
            self.wake_all()
