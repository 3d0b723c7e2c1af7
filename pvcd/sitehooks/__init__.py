"""Site hooks: executables of the site that run around every operation.

Site hooks of the phase `pre` run before it, one after another; the first that exits with another status than 0 refuses
it. Those of `post` and `fail` run after it, in the background, and their results are only recorded. What is pending
when the daemon ends is run by the next one.

Each operation looks into the directory, so it has to be on a local disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterable

from pvcd.declare.context import Component, Context, Role
from pvcd.declare.operations import FAIL, POST, PRE, SITE_HOOKS, Operation, OperationKind, SiteHooks, kind_of
from pvcd.errors import HookFailed, HookRefused, PvcdError
from pvcd.process import ProcessIdentity
from pvcd.sitehooks.envelope import Envelope, document_of
from pvcd.sitehooks.execution import Ending, execute, fingerprint
from pvcd.sitehooks.folder import Hook, Unsafe, opened, place_of, scan
from pvcd.sitehooks.runs import HookRun, Runs

log = logging.getLogger(__name__)
MAX_ASKING, MAX_NOTIFYING = 16, 4
"""Operations whose site hooks run at the same time, before and after them."""
STOP_SECONDS = 3.0
ADOPT_ATTEMPTS, ADOPT_PAUSE_SECONDS = 50, 0.1


class FolderHooks:
    """Runs the site hooks of a directory."""

    def __init__(self, context: Context) -> None:
        self._settings = context.settings.hooks
        self._context = context
        self._runs = Runs(self._settings.records)
        self._process = ProcessIdentity.current()
        self._asking, self._notifying = asyncio.Semaphore(MAX_ASKING), asyncio.Semaphore(MAX_NOTIFYING)
        self._work: set[asyncio.Task[None]] = set()

    async def ask(self, context: Context, operation: Operation) -> None:
        """Run the site hooks of `pre`. Raises `HookRefused` or `HookFailed`."""
        kind = kind_of(context, operation.name)
        if PRE not in kind.phases or not self._has(kind.name, PRE):
            return
        document = document_of(context, operation)
        async with self._place(kind.name):
            await self._ask(document)

    @contextlib.asynccontextmanager
    async def _place(self, operation: str) -> AsyncIterator[None]:
        """Wait for one of the few places, for at most the time of a phase."""
        try:
            async with asyncio.timeout(self._settings.phase_seconds):
                await self._asking.acquire()
        except TimeoutError:
            raise HookFailed(f"Cannot do {operation!r}: too many site hooks are running. Try again later.") from None
        try:
            yield
        finally:
            self._asking.release()

    async def _ask(self, document: Envelope) -> None:
        name, seconds = document["operation"], self._settings.limit(document["operation"], PRE)
        end = self._context.clock.monotonic() + max(self._settings.phase_seconds, seconds)
        with contextlib.ExitStack() as stack:
            for hook in await self._open(stack, name, PRE):
                remaining = end - self._context.clock.monotonic()
                if remaining <= 0:
                    raise HookFailed(
                        f"Cannot do {name!r}: its site hooks took more than {self._settings.phase_seconds:g} s."
                    )
                run = self._run_of(hook.name, PRE, document)
                ending = await self._run(run, hook, document, min(seconds, remaining))
                if ending.refused:
                    raise HookRefused(f"Cannot do {name!r}: site hook {run.name!r} refused it: {ending.sentence}.")
                if ending.sentence:
                    raise HookFailed(f"Cannot do {name!r}: site hook {run.name!r} failed: {ending.sentence}.")

    async def notify(self, context: Context, operation: Operation) -> None:
        """Record the site hooks of `post` or `fail` as pending, and start them."""
        kind, phase = kind_of(context, operation.name), FAIL if operation.failure else POST
        if phase not in kind.phases or operation.is_dry_run or not self._has(kind.name, phase):
            return
        try:
            document = document_of(context, operation)
            with contextlib.ExitStack() as stack:
                hooks = await self._open(stack, kind.name, phase)
            runs = [self._run_of(hook.name, phase, document) for hook in hooks]
            for run in runs:
                await asyncio.to_thread(self._runs.save, run)
            self._run_later(runs)
        except PvcdError as error:
            log.error("%s", error)
        except Exception:
            log.exception("cannot run the site hooks of %s.%s", operation.name, phase)

    async def start(self) -> None:
        """Log the files that do not run, and run what is pending from an earlier process."""
        phases = {kind.name: kind.phases for kind in self._context.declared(OperationKind)}
        for entry in await asyncio.to_thread(scan, self._settings.directory, phases):
            if entry.reason:
                log.warning("%s/%s does not run: %s", self._settings.directory, entry.place, entry.reason)
        self._run_later(await self._pending())

    async def _pending(self) -> list[HookRun]:
        """Take over the pending runs of an earlier process of this daemon."""
        for _ in range(ADOPT_ATTEMPTS):
            try:
                return await asyncio.to_thread(self._runs.adopt, self._context.role.value, self._process)
            except BlockingIOError:
                await self._context.clock.sleep(ADOPT_PAUSE_SECONDS)
        log.warning("another process holds the runs of site hooks: pending ones wait for the next start")
        return []

    async def stop(self) -> None:
        """Wait a few seconds for what runs; leave the rest to the next process."""
        if self._work:
            await asyncio.wait(self._work, timeout=STOP_SECONDS)
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def _has(self, operation: str, phase: str) -> bool:
        return os.path.isdir(self._settings.directory / place_of(operation, phase))

    async def _open(self, stack: contextlib.ExitStack, operation: str, phase: str) -> list[Hook]:
        directory = self._settings.directory
        try:
            return await asyncio.to_thread(stack.enter_context, opened(directory, operation, phase))
        except Unsafe as error:
            place = directory / place_of(operation, phase)
            raise HookFailed(f"Cannot do {operation!r}: {place} {error}.") from None

    def _run_of(self, hook: str, phase: str, document: Envelope) -> HookRun:
        return HookRun(
            event=document["event"],
            operation=document["operation"],
            phase=phase,
            hook=hook,
            place=self._context.role.value,
            process=self._process,
            queued=self._context.clock.time(),
            document=document,
        )

    def _run_later(self, runs: Iterable[HookRun]) -> None:
        for group in _by_event(runs):
            work = asyncio.ensure_future(self._run_all(group))
            self._work.add(work)
            work.add_done_callback(self._work.discard)

    async def _run_all(self, runs: list[HookRun]) -> None:
        """Run the site hooks of one event, one after another."""
        async with self._notifying:
            for run in runs:
                try:
                    await self._run_noted(run)
                except PvcdError as error:
                    log.error("%s", error)
                    await self._keep(run, Ending(error.sentence.rstrip(".")))
                except Exception:
                    log.exception("cannot run site hook %s", run.name)

    async def _run_noted(self, run: HookRun) -> None:
        seconds = self._settings.limit(run.operation, run.phase)
        with contextlib.ExitStack() as stack:
            hooks = await self._open(stack, run.operation, run.phase)
            hook = next((hook for hook in hooks if hook.name == run.hook), None)
            if hook is None:
                return await self._keep(run, Ending("it does not exist any more"))
            ending = await self._run(run, hook, run.document or {}, seconds)
            if ending.sentence:
                log.error("site hook %s failed: %s (pvcd hooks log %s)", run.name, ending.sentence, run.id)
        return None

    async def _run(self, run: HookRun, hook: Hook, document: Envelope, seconds: float) -> Ending:
        """Run a site hook and record its result."""
        document = {**document, "phase": run.phase, "hook": run.hook, "attempt": run.attempt, "seconds": seconds}
        document["directory"] = str(self._settings.directory)
        run = run.model_copy(update={"state": "running", "sha256": await asyncio.to_thread(fingerprint, hook)})
        await asyncio.to_thread(self._runs.save, run)
        try:
            ending = await execute(hook, document, seconds)
        except asyncio.CancelledError:
            if run.phase == PRE:  # it is not repeated
                interrupted = run.model_copy(update={"state": "failed", "sentence": "the request was cancelled"})
                asyncio.get_running_loop().run_in_executor(None, self._runs.save, interrupted)
            raise
        await self._keep(run, ending)
        return ending

    async def _keep(self, run: HookRun, ending: Ending) -> None:
        await asyncio.to_thread(self._runs.save, run.ended(ending))


def _by_event(runs: Iterable[HookRun]) -> list[list[HookRun]]:
    groups: dict[str, list[HookRun]] = {}
    for run in runs:
        groups.setdefault(run.event, []).append(run)
    return list(groups.values())


class _NoHooks:
    """The site hooks of a simulation without any."""

    async def ask(self, context: Context, operation: Operation) -> None:
        """Refuse nothing."""

    async def notify(self, context: Context, operation: Operation) -> None:
        """Run nothing."""


@contextlib.asynccontextmanager
async def _open(context: Context) -> AsyncIterator[SiteHooks]:
    hooks = FolderHooks(context)
    await hooks.start()
    try:
        yield hooks
    finally:
        await hooks.stop()


@contextlib.asynccontextmanager
async def _simulated(context: Context) -> AsyncIterator[SiteHooks]:
    yield _NoHooks()


COMPONENT = Component(SITE_HOOKS, _open, roles=(Role.API, Role.NODE, Role.WORKER), fake=_simulated)
