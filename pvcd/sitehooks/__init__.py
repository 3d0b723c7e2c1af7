"""The site's own hooks: executables of the hooks directory, run around every operation.

Those of the phase `pre` are run before it, one after the other, and the first that does not end with 0 refuses it.
Those of `post` and `fail` are run after it, beside everything else: what they come to is only noted. What is still to
be run when the daemon ends, is run by the next one.

Whether an operation has hooks is seen by one look at the directory, which has to be on a local disk.
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
from pvcd.sitehooks.envelope import Envelope, told_of
from pvcd.sitehooks.execution import Ending, execute, fingerprint
from pvcd.sitehooks.folder import Hook, Unsafe, opened, place_of, scan
from pvcd.sitehooks.runs import HookRun, Runs

log = logging.getLogger(__name__)
ASKED_AT_ONCE, TOLD_AT_ONCE = 16, 4
"""Operations whose hooks run side by side, before and after them."""
STOP_SECONDS = 3.0
ADOPT_TRIES, ADOPT_PAUSE = 50, 0.1


class FolderHooks:
    """Runs the hooks of a directory."""

    def __init__(self, context: Context) -> None:
        self._settings = context.settings.hooks
        self._context = context
        self._runs = Runs(self._settings.records)
        self._process = ProcessIdentity.current()
        self._asking, self._telling = asyncio.Semaphore(ASKED_AT_ONCE), asyncio.Semaphore(TOLD_AT_ONCE)
        self._work: set[asyncio.Task[None]] = set()

    async def ask(self, context: Context, operation: Operation) -> None:
        """Run the hooks of `pre`, unless the operation knows none."""
        kind = kind_of(context, operation.name)
        if PRE not in kind.phases or not self._has(kind.name, PRE):
            return
        told = told_of(context, operation)
        async with self._place(kind.name):
            await self._ask(told)

    @contextlib.asynccontextmanager
    async def _place(self, operation: str) -> AsyncIterator[None]:
        """One of the few that run side by side."""
        try:
            async with asyncio.timeout(self._settings.phase_seconds):
                await self._asking.acquire()
        except TimeoutError:
            raise HookFailed(f"Cannot do {operation!r}: too many site hooks are running. Try again later.") from None
        try:
            yield
        finally:
            self._asking.release()

    async def _ask(self, told: Envelope) -> None:
        name, seconds = told["operation"], self._settings.limit(told["operation"], PRE)
        end = self._context.clock.monotonic() + max(self._settings.phase_seconds, seconds)
        with contextlib.ExitStack() as stack:
            for hook in await self._open(stack, name, PRE):
                left = end - self._context.clock.monotonic()
                if left <= 0:
                    raise HookFailed(
                        f"Cannot do {name!r}: its site hooks took more than {self._settings.phase_seconds:g} s."
                    )
                run = self._run_of(hook.name, PRE, told)
                ending = await self._run(run, hook, told, min(seconds, left))
                if ending.refused:
                    raise HookRefused(f"Cannot do {name!r}: site hook {run.name!r} refused it: {ending.sentence}.")
                if ending.sentence:
                    raise HookFailed(f"Cannot do {name!r}: site hook {run.name!r} failed: {ending.sentence}.")

    async def notify(self, context: Context, operation: Operation) -> None:
        """Note which hooks of `post` or `fail` are to be run, and run them from now on."""
        kind, phase = kind_of(context, operation.name), FAIL if operation.failure else POST
        if phase not in kind.phases or operation.is_dry_run or not self._has(kind.name, phase):
            return
        try:
            told = told_of(context, operation)
            with contextlib.ExitStack() as stack:
                hooks = await self._open(stack, kind.name, phase)
            runs = [self._run_of(hook.name, phase, told) for hook in hooks]
            for run in runs:
                await asyncio.to_thread(self._runs.save, run)
            self._run_later(runs)
        except PvcdError as error:
            log.error("%s", error)
        except Exception:
            log.exception("the hooks of %s.%s are not run", operation.name, phase)

    async def start(self) -> None:
        """Say what does not run, and run what an earlier process has left."""
        phases = {kind.name: kind.phases for kind in self._context.declared(OperationKind)}
        for entry in await asyncio.to_thread(scan, self._settings.directory, phases):
            if entry.reason:
                log.warning("%s/%s does not run: %s", self._settings.directory, entry.place, entry.reason)
        self._run_later(await self._left())

    async def _left(self) -> list[HookRun]:
        """What an earlier process of this daemon has left."""
        for _ in range(ADOPT_TRIES):
            try:
                return await asyncio.to_thread(self._runs.adopt, self._context.role.value, self._process)
            except BlockingIOError:
                await self._context.clock.sleep(ADOPT_PAUSE)
        log.warning("another process keeps the runs of hooks: what is left of earlier ones waits for the next start")
        return []

    async def stop(self) -> None:
        """Let what runs come to its end, but not for long: the rest is left to the next process."""
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

    def _run_of(self, hook: str, phase: str, told: Envelope) -> HookRun:
        return HookRun(
            event=told["event"],
            operation=told["operation"],
            phase=phase,
            hook=hook,
            place=self._context.role.value,
            process=self._process,
            queued=self._context.clock.time(),
            told=told,
        )

    def _run_later(self, runs: Iterable[HookRun]) -> None:
        for group in _by_event(runs):
            work = asyncio.ensure_future(self._run_all(group))
            self._work.add(work)
            work.add_done_callback(self._work.discard)

    async def _run_all(self, runs: list[HookRun]) -> None:
        """The hooks of one event, one after the other."""
        async with self._telling:
            for run in runs:
                try:
                    await self._run_noted(run)
                except PvcdError as error:
                    log.error("%s", error)
                    await self._keep(run, Ending(error.sentence.rstrip(".")))
                except Exception:
                    log.exception("the hook %s is not run", run.name)

    async def _run_noted(self, run: HookRun) -> None:
        seconds = self._settings.limit(run.operation, run.phase)
        with contextlib.ExitStack() as stack:
            hooks = await self._open(stack, run.operation, run.phase)
            hook = next((hook for hook in hooks if hook.name == run.hook), None)
            if hook is None:
                return await self._keep(run, Ending("it is not there any more"))
            ending = await self._run(run, hook, run.told or {}, seconds)
            if ending.sentence:
                log.error("the hook %s failed: %s (pvcd hooks log %s)", run.name, ending.sentence, run.id)
        return None

    async def _run(self, run: HookRun, hook: Hook, told: Envelope, seconds: float) -> Ending:
        """Run a hook and keep what came of it."""
        told = {**told, "phase": run.phase, "hook": run.hook, "attempt": run.attempt, "seconds": seconds}
        told["directory"] = str(self._settings.directory)
        run = run.model_copy(update={"state": "running", "sha256": await asyncio.to_thread(fingerprint, hook)})
        await asyncio.to_thread(self._runs.save, run)
        try:
            ending = await execute(hook, told, seconds)
        except asyncio.CancelledError:
            if run.phase == PRE:  # nobody will ask again
                interrupted = run.model_copy(update={"state": "failed", "sentence": "who asked went away"})
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
    """The hooks of a simulation that brings none."""

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
