"""The supervisor: starts servers as direct children, waits until they are ready, restarts and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pvcd import Failed, PvcdError
from pvcd_plugins.sandbox.packages import PATH
from pvcd_plugins.sandbox.service import Service
from pvcd_plugins.sandbox.state import MARK, Phase, ProcessId, start_time

READY_LIMIT = 60.0
ASK_LIMIT = 5.0
POLL = 0.05
FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
CALM = 30.0
"""A server that ran for so long is restarted as if it had never failed."""
TAIL = 8
Report = Callable[[str], None]


@dataclass
class Child:
    """One server and the process that it is now."""

    service: Service
    process: Process
    id: ProcessId
    phase: Phase = Phase.STARTING
    since: float = field(default_factory=time.time)
    restarts: int = 0
    keeper: asyncio.Task[None] | None = None


class Supervisor:
    """Runs servers. Started in the main thread's event loop, each of them dies with us, even on kill -9."""

    def __init__(
        self,
        directory: Path,
        *,
        report: Report,
        changed: Callable[[], None] = lambda: None,
        ready_limit: float = READY_LIMIT,
    ) -> None:
        self.children: dict[str, Child] = {}
        self._order: list[str] = []
        self._directory = directory
        self._report = report
        self._changed = changed
        self._ready_limit = ready_limit

    async def start(self, *services: Service) -> None:
        """Start servers side by side and return when all are ready; raises the first failure."""
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
        """Stop the named servers, or all of them, one after another, the last started first."""
        for child in reversed(self.in_order()):
            if not names or child.service.name in names:
                await self._stop(child)

    def in_order(self) -> list[Child]:
        """All servers in the order in which they were to start, however long each took."""
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
        delay = FIRST_DELAY
        while True:
            await child.process.wait()
            delay = FIRST_DELAY if time.time() - child.since > CALM else delay
            how = _ending(child.process)
            _kill_group(child)
            self._enter(child, Phase.STOPPED)
            self._say(child.service.name, f"{how}; starting it again in {delay:.1f} s")
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
            await self._restart(child)

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
            _kill_group(child)
        else:
            self._enter(child, Phase.RUNNING)
            self._say(child.service.name, f"ready again after {time.monotonic() - begun:.1f} s")

    async def _spawn(self, service: Service) -> Process:
        """Start the process, with its output in log/NAME.log and the end of its life bound to ours."""
        environment = {"PATH": PATH, "HOME": str(self._directory), "LANG": "C.UTF-8", MARK: str(self._directory)}
        try:
            if service.prepare is not None:
                await asyncio.to_thread(service.prepare)
            with self._log(service).open("ab") as log:
                return await asyncio.create_subprocess_exec(
                    *("setpriv", "--pdeathsig", "KILL", "--", *service.argv),
                    stdin=DEVNULL,
                    stdout=log,
                    stderr=STDOUT,
                    env={**environment, **service.environment},
                    start_new_session=True,
                    pass_fds=service.sockets,
                )
        except OSError as error:
            raise Failed(f"{service.name} cannot be started: {error}.") from error

    async def _until_ready(self, child: Child) -> None:
        name, end = child.service.name, time.monotonic() + self._ready_limit
        while True:
            ready = await _is_ready(child.service)
            # Looked at after the answer, which may be that of a stranger on the port that ours could not have.
            if child.process.returncode is not None:
                raise Failed(await self._with_log(child, f"{name} {_ending(child.process)} before it was ready"))
            if ready:
                return
            if time.monotonic() > end:
                raise Failed(await self._with_log(child, f"{name} was not ready after {self._ready_limit:g} s"))
            await asyncio.sleep(POLL)

    async def _stop(self, child: Child) -> None:
        """End one server: SIGTERM, and SIGKILL for all of its group when its time is over."""
        begun = time.monotonic()
        if child.keeper is not None:
            child.keeper.cancel()
            await asyncio.wait([child.keeper])
        if child.process.returncode is None:
            child.process.terminate()
            try:
                async with asyncio.timeout(child.service.stop_timeout):
                    await child.process.wait()
                how = "stopped"
            except TimeoutError:
                how = "did not stop and was killed"
            _kill_group(child)
            await child.process.wait()
            self._say(child.service.name, f"{how} after {time.monotonic() - begun:.1f} s")
        self._enter(child, Phase.STOPPED)

    async def _with_log(self, child: Child, sentence: str) -> str:
        path = self._log(child.service)
        lines = await asyncio.to_thread(last_lines, path)
        return f"{sentence}; the end of {path}:\n" + "\n".join(f"  {line}" for line in lines)

    def _log(self, service: Service) -> Path:
        return self._directory / "log" / f"{service.name}.log"

    def _enter(self, child: Child, phase: Phase) -> None:
        child.phase, child.since = phase, time.time()
        self._changed()

    def _say(self, name: str, text: str) -> None:
        self._report(f"{name:<11} {text}")


def last_lines(path: Path, count: int = TAIL) -> list[str]:
    """The end of a log."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        return file.read().decode(errors="replace").splitlines()[-count:]


async def _is_ready(service: Service) -> bool:
    try:
        async with asyncio.timeout(ASK_LIMIT):
            return await service.ready()
    except OSError:  # not listening yet; a TimeoutError is one too
        return False


def _begin_log(path: Path) -> None:
    """Begin a new log and keep the one before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.replace(path.with_suffix(".log.1"))


def _identify(process: Process) -> ProcessId:
    return ProcessId(process.pid, start_time(process.pid))


def _kill_group(child: Child) -> None:
    """Kill all of its group. Called before the server is reaped or right after, while the number is not yet reused."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, signal.SIGKILL)


def _ending(process: Process) -> str:
    status = process.returncode
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"
