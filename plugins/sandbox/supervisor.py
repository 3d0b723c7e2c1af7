"""The supervisor: starts servers as direct children, waits until they are ready, restarts and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from pvcd import Failed, PvcdError, programs
from pvcd_plugins.sandbox.packages import PATH
from pvcd_plugins.sandbox.service import Service
from pvcd_plugins.sandbox.state import MARK, Phase, ProcessId, start_time

supervise = programs.supervise
READY_SECONDS = 60.0
ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.05
WATCH_SECONDS = 5.0
"""Longest time between two looks at a server that is restarted when it is lost."""
LOG_LINES = 8
"""How many lines of its log a server's failure shows."""
Report = Callable[[str], None]


@dataclass
class Child:
    """One server and its present process."""

    service: Service
    process: Process
    id: ProcessId
    phase: Phase = Phase.STARTING
    since: float = field(default_factory=time.time)
    restarts: int = 0
    keeper: asyncio.Task[None] | None = None


class Supervisor:
    """Starts and stops servers. Those started by the main thread die with this process, even on kill -9."""

    def __init__(
        self,
        directory: Path,
        *,
        report: Report,
        changed: Callable[[], None] = lambda: None,
        ready_seconds: float = READY_SECONDS,
    ) -> None:
        self.children: dict[str, Child] = {}
        self._order: list[str] = []
        self._directory = directory
        self._report = report
        self._changed = changed
        self._ready_seconds = ready_seconds

    async def start(self, *services: Service) -> None:
        """Start servers side by side and return when all are ready; raise the first failure."""
        self._order += [service.name for service in services]
        try:
            async with asyncio.TaskGroup() as group:
                for service in services:
                    group.create_task(self._start(service))
        except* PvcdError as errors:
            failure = errors.exceptions[0]
        else:
            return
        raise failure

    async def stop(self, *names: str) -> None:
        """Stop the named servers, or all of them, one by one in reverse order of their start."""
        for child in reversed(self.in_order()):
            if not names or child.service.name in names:
                await self._stop(child)

    def in_order(self) -> list[Child]:
        """Return all servers in the order in which they were requested."""
        return [self.children[name] for name in self._order if name in self.children]

    async def _start(self, service: Service) -> None:
        begun = time.monotonic()
        await asyncio.to_thread(_begin_log, self._log(service))
        process = await self._spawn(service)
        child = Child(service, process, _identify(process))
        self.children[service.name] = child
        self._enter(child, Phase.STARTING)
        await self._until_ready(child)
        self._enter(child, Phase.RUNNING)
        self._say(service.name, f"ready after {time.monotonic() - begun:.1f} s")
        child.keeper = asyncio.create_task(self._keep(child), name=f"keeper of {service.name}")

    async def _keep(self, child: Child) -> None:
        """Restart the server whenever it ends, with growing delays."""

        async def run() -> str:
            if child.phase is not Phase.RUNNING:
                await self._restart(child)
            async with self._watched(child):
                how = supervise.ending(await child.process.wait())
            supervise.kill_group(child.process)
            self._enter(child, Phase.STOPPED)
            return how

        await supervise.keep(
            run, lambda how, delay: self._say(child.service.name, f"{how}; restarting it in {delay:g} s")
        )

    @contextlib.asynccontextmanager
    async def _watched(self, child: Child) -> AsyncIterator[None]:
        """Kill the server during the block if it is lost."""
        watching = asyncio.create_task(self._watch(child), name=f"watcher of {child.service.name}")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def _watch(self, child: Child) -> None:
        limit = child.service.lost_seconds
        if limit is None:
            return
        since: float | None = None
        while since is None or time.monotonic() - since < limit:
            await asyncio.sleep(min(WATCH_SECONDS, limit / 4))
            # One that does not answer is busy, or paused by someone.
            lost = await _readiness(child.service) is False
            since = (since or time.monotonic()) if lost else None
        self._say(child.service.name, f"it has not been ready for {limit:g} s; killing it")
        supervise.kill_group(child.process)

    async def _restart(self, child: Child) -> None:
        begun = time.monotonic()
        child.restarts += 1
        try:
            child.process = await self._spawn(child.service)
            child.id = _identify(child.process)
            self._enter(child, Phase.STARTING)
            await self._until_ready(child)
        except Failed as error:
            self._say(child.service.name, error.sentence)
            supervise.kill_group(child.process)
        else:
            self._enter(child, Phase.RUNNING)
            self._say(child.service.name, f"ready again after {time.monotonic() - begun:.1f} s")

    async def _spawn(self, service: Service) -> Process:
        """Start a process that writes to log/NAME.log and is killed when this process ends."""
        environment = {"PATH": PATH, "HOME": str(self._directory), "LANG": "C.UTF-8", MARK: str(self._directory)}
        try:
            if service.prepare is not None:
                await asyncio.to_thread(service.prepare)
            with self._log(service).open("ab") as log:
                return await programs.start(
                    supervise.bound(service.argv),
                    stdin=DEVNULL,
                    stdout=log,
                    stderr=STDOUT,
                    env={**environment, **service.environment},
                    pass_fds=service.sockets,
                )
        except OSError as error:
            raise Failed(f"Cannot start {service.name}: {error}.") from error

    async def _until_ready(self, child: Child) -> None:
        end = time.monotonic() + self._ready_seconds
        while True:
            ready = await _readiness(child.service)
            # Only now: the answer may come from another program on the port that our server could not get.
            if child.process.returncode is not None:
                raise Failed(
                    await self._failure(child, f"it {supervise.ending(child.process.returncode)} before it was ready")
                )
            if ready:
                return
            if time.monotonic() > end:
                raise Failed(await self._failure(child, f"it was not ready after {self._ready_seconds:g} s"))
            await asyncio.sleep(POLL_SECONDS)

    async def _stop(self, child: Child) -> None:
        """Stop one server with SIGTERM; after its `stop_seconds`, kill its process group."""
        begun = time.monotonic()
        if child.keeper is not None:
            child.keeper.cancel()
            await asyncio.wait([child.keeper])
        if child.process.returncode is None:
            in_time = await supervise.stop(child.process, child.service.stop_seconds)
            supervise.kill_group(child.process)
            how = "stopped" if in_time else "did not stop and was killed"
            self._say(child.service.name, f"{how} after {time.monotonic() - begun:.1f} s")
        self._enter(child, Phase.STOPPED)

    async def _failure(self, child: Child, reason: str) -> str:
        path = self._log(child.service)
        lines = await asyncio.to_thread(last_lines, path)
        return "\n  ".join([f"Cannot start {child.service.name}: {reason}. The end of {path}:", *lines])

    def _log(self, service: Service) -> Path:
        return self._directory / "log" / f"{service.name}.log"

    def _enter(self, child: Child, phase: Phase) -> None:
        child.phase, child.since = phase, time.time()
        self._changed()

    def _say(self, name: str, text: str) -> None:
        self._report(f"{name:<11} {text}")


def last_lines(path: Path, count: int = LOG_LINES) -> list[str]:
    """Return the last lines of a log."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        return file.read().decode(errors="replace").splitlines()[-count:]


async def _readiness(service: Service) -> bool | None:
    """Return whether a server says that it is ready; None if it does not answer."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await service.ready()
    except OSError:  # not listening yet; a TimeoutError is one too
        return None


def _begin_log(path: Path) -> None:
    """Start a new log and keep the previous one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.replace(path.with_suffix(".log.1"))


def _identify(process: Process) -> ProcessId:
    return ProcessId(process.pid, start_time(process.pid))
