"""The task worker: claims free tasks, and runs a few of them at the same time.

A message wakes it, or it finds the task in the store, where it looks every few seconds: for pending tasks, and for
tasks whose worker has died, which it undoes. When it is stopped it claims no more tasks, and undoes those that it runs.

It owns a task while its claim exists, which goes with its ZooKeeper session. When the session may be lost, it cancels
the running steps and leaves the rest to other workers, which wait one more look before they begin to undo.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from uuid import UUID

from pvcd.cluster import schema
from pvcd.daemon.components import open_components
from pvcd.declare.context import Context
from pvcd.errors import Changed, PvcdError
from pvcd.process import ProcessIdentity
from pvcd.records import Record
from pvcd.store import Create, Delete, Link, Put
from pvcd.tasks.queue import TASK_QUEUE
from pvcd.tasks.records import Claim, Task
from pvcd.tasks.runner import CANCELLED, STOPPED, ClaimLostError, TaskRunner

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
STOP_SECONDS = 60.0
"""The limit for undoing when the worker is stopped; the next worker does the rest."""
KEPT_SECONDS = 7 * 86400
MAX_KEPT_TASKS = 1000
"""Limits for ended tasks: older ones, and the oldest beyond this number, are removed."""
MAX_REMOVED_AT_ONCE = 100


@contextlib.asynccontextmanager
async def worker(context: Context, process: ProcessIdentity | None = None) -> AsyncIterator[Worker]:
    """Run a task worker until the block ends; then it undoes its tasks. A simulated one needs its own `process`."""
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(context.store.close)
        await context.store.open()
        await schema.prepare(context.store)
        await stack.enter_async_context(open_components(context))
        one = Worker(context, process or ProcessIdentity.current())
        await stack.enter_async_context(context[TASK_QUEUE].listen(one.attend, one.threads))
        stack.push_async_callback(one.stop)
        one.start()
        log.info("task worker %s takes tasks, %d at once", one.name, one.threads)
        yield one


class Worker:
    """The task worker of this process."""

    def __init__(self, context: Context, process: ProcessIdentity) -> None:
        self.threads = context.settings.worker.threads
        self.name = f"{context.settings.node.name}:{os.getpid()}"
        self._context = context
        self._process = process
        self._grace_seconds = context.settings.zookeeper.session_timeout / 3
        self._room = asyncio.Semaphore(self.threads)
        self._work: dict[UUID, asyncio.Task[None]] = {}
        self._runners: dict[UUID, TaskRunner] = {}
        self._orphans: frozenset[UUID] = frozenset()
        self._stopping = False
        self._grace_timer: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look for tasks from now on."""
        self._unsubscribe = self._context.store.subscribe(self._changed)
        self._context.store.on_link(self._linked)
        self._looking = asyncio.ensure_future(self._look_repeatedly())

    async def stop(self) -> None:
        """Claim no more tasks, and undo those that run; if this is cancelled, the next worker undoes them."""
        self._stopping = True
        self._unsubscribe()
        self._looking.cancel()
        for id, work in self._work.items():
            if id in self._runners:
                self._runners[id].interrupt(STOPPED)
            else:
                work.cancel()
        everything = [self._looking, *self._work.values()]
        try:
            await asyncio.wait(everything, timeout=STOP_SECONDS)
        finally:
            everything += [self._grace_timer] if self._grace_timer else []
            for each in everything:
                each.cancel()
            await asyncio.gather(*everything, return_exceptions=True)

    async def attend(self, id: UUID) -> None:
        """Run a task, if it is free, and return when this worker is done with it."""
        if not self._stopping:
            await asyncio.wait([self._work.get(id) or self._begin(id)])

    # Finding tasks

    async def _look_repeatedly(self) -> None:
        while True:
            try:
                await self._look()
            except PvcdError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("looking for tasks failed")
            await self._context.clock.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        """Begin free tasks, as far as there is room; remove old tasks."""
        store = self._context.store
        if store.stale_since is not None:
            return
        tasks = store.all(Task)
        waiting = sorted((task for task in tasks if not task.is_over), key=lambda task: task.created)
        for task in waiting:
            idle = len(self._work) < self.threads and task.id not in self._work
            if idle and self._is_free(task, store.get(Claim, task.id)):
                self._begin(task.id)
        self._orphans = frozenset(task.id for task in waiting if store.get(Claim, task.id) is None)
        await self._clean(tasks)

    def _is_free(self, task: Task, claim: Claim | None) -> bool:
        """Return whether no worker runs a task, nor may still be cancelling the steps of one whose claim is gone."""
        if task.is_over:
            return False
        if claim:
            return claim.process == self._process or claim.process.has_ended()
        return task.state == "pending" or task.id in self._orphans

    async def _clean(self, tasks: list[Task]) -> None:
        newest_first = sorted((task for task in tasks if task.is_over), key=lambda task: -(task.ended or 0))
        oldest = self._context.clock.time() - KEPT_SECONDS
        kept = [task for task in newest_first[:MAX_KEPT_TASKS] if (task.ended or 0) >= oldest]
        for task in newest_first[len(kept) :][:MAX_REMOVED_AT_ONCE]:
            with contextlib.suppress(Changed):  # another worker was first
                await self._context.store.write(Delete(task))

    # Running tasks

    def _begin(self, id: UUID) -> asyncio.Task[None]:
        work = self._work[id] = asyncio.ensure_future(self._run(id))
        work.add_done_callback(lambda _: self._work.pop(id))
        return work

    async def _run(self, id: UUID) -> None:
        async with self._room:
            try:
                if runner := await self._take(id):
                    self._runners[id] = runner
                    await runner.run()
            except ClaimLostError:
                log.warning("task %s is lost: another worker may claim it", id)
            except PvcdError as error:
                log.warning("task %s: %s", id, error)
            except Exception:
                log.exception("task %s is left for the next worker to undo", id)
            finally:
                self._runners.pop(id, None)

    async def _take(self, id: UUID) -> TaskRunner | None:
        """Claim a task, unless another worker runs it or it has ended."""
        store = self._context.store
        task, claim = await store.read(Task, id), await store.read(Claim, id)
        if task is None or not self._is_free(task, claim):
            return None
        mine = Claim(id=id, worker=self.name, session=store.tree.session, process=self._process)
        started = task.started or self._context.clock.time()
        taken = task.changed(state="running", worker=self.name, attempt=task.attempt + 1, started=started)
        try:
            await store.write(*([Delete(claim)] if claim else []), Create(mine), Put(taken))
        except Changed:
            return None
        task, claim = store.get(Task, id), store.get(Claim, id)
        return TaskRunner(self._context, task, claim) if task and claim else None

    # Losing tasks

    def _changed(self, path: str, old: Record | None, new: Record | None) -> None:
        if isinstance(new, Task) and new.cancel and new.id in self._runners:
            self._runners[new.id].interrupt(CANCELLED)
        if isinstance(old, Claim) and old.id in self._runners and not self._runners[old.id].task.is_over:
            self._work[old.id].cancel()

    def _linked(self, link: Link) -> None:
        if self._grace_timer:
            self._grace_timer.cancel()
        if link is Link.LOST:
            self._abandon()
        elif link is Link.SUSPENDED:
            self._grace_timer = asyncio.ensure_future(self._abandon_soon())

    async def _abandon_soon(self) -> None:
        """Abandon all tasks when the grace period has passed: the session lives at least that much longer."""
        await self._context.clock.sleep(self._grace_seconds)
        self._abandon()

    def _abandon(self) -> None:
        for id in self._runners:
            log.warning("the ZooKeeper session may be lost: task %s is left for the next worker to undo", id)
            self._work[id].cancel()
