"""What is known of a sandbox on disk: its lock, its state, and the processes that belong to it.

A process is always known by its pid *and* its start time, so that a number that was given away again is never mistaken
for one of ours. What a killed sandbox left behind is named by its state file or carries `MARK` in its environment.
Guests carry no mark: `libvirtd.processes` knows them by their namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from pvcd import Conflict, Failed

MARK = "PVCD_SANDBOX"
"""The environment variable that each server inherits: the absolute path of the sandbox's directory."""

PROC = Path("/proc")
END_LIMIT = 10.0


class ProcessId(NamedTuple):
    """A process that is never mistaken for a later one."""

    pid: int
    started: int
    """Clock ticks since boot, from /proc/PID/stat."""


class Phase(StrEnum):
    """How far a server is."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"


class Server(BaseModel):
    """One server, as its supervisor saw it last."""

    model_config = ConfigDict(frozen=True)

    name: str
    process: ProcessId
    argv: tuple[str, ...]
    port: int | None
    phase: Phase
    since: float
    """Seconds since 1970, when it entered its phase."""
    restarts: int


class State(BaseModel):
    """state.json"""

    model_config = ConfigDict(frozen=True)

    supervisor: ProcessId
    ready: bool
    ports: dict[str, int]
    servers: tuple[Server, ...]


def api_address(ports: Mapping[str, int]) -> str:
    """Where the sandbox's API listens."""
    return f"http://127.0.0.1:{ports['api']}/api/v1"


def start_time(pid: int, proc: Path = PROC) -> int:
    """When a process was started, also of a zombie; 0 if there is none."""
    fields = _stat(pid, proc)
    return int(fields[19]) if fields else 0


def runs(process: ProcessId, proc: Path = PROC) -> bool:
    """Whether it still runs; a zombie is gone, it only waits for its parent to notice."""
    fields = _stat(process.pid, proc)
    return bool(fields) and int(fields[19]) == process.started and fields[0] not in ("Z", "X")


def program(process: ProcessId, proc: Path = PROC) -> str:
    """The name of the program that it runs; nothing if it runs no more."""
    try:
        return (proc / str(process.pid) / "comm").read_text().strip() if runs(process, proc) else ""
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _stat(pid: int, proc: Path) -> list[str]:
    """The fields of /proc/PID/stat after the program's name, the state first."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; False if it runs no more."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor is bound to whoever has the pid now; the look comes after, so that it is about the same one.
        if not runs(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


async def wait_until_gone(processes: Iterable[ProcessId], limit: float) -> bool:
    """Return as soon as none of them runs, True; or False after `limit` seconds."""
    end = time.monotonic() + limit
    waiting = list(processes)
    while waiting := [process for process in waiting if runs(process)]:
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Hold the directory's lock; the kernel lets go of it when we die, however we die.

    Raises `Conflict` when another process holds it.
    """
    with (directory / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"The sandbox in {directory} is in use{_by(directory)}.") from None
        yield


def _by(directory: Path) -> str:
    state = read(directory)
    return f" by process {state.supervisor.pid}" if state and runs(state.supervisor) else " by another process"


def make(directory: Path) -> None:
    """Make the directory of a sandbox; one that holds something else is refused, since we clear up in ours."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not is_sandbox(directory) and any(directory.iterdir()):
            raise Conflict(f"{directory} is not empty and is no sandbox: choose another directory.")
        (directory / "lock").touch()
        (directory / "log").mkdir(exist_ok=True)
    except OSError as error:
        raise Failed(f"The directory {directory} cannot be used: {error.strerror}.") from error


def is_sandbox(directory: Path) -> bool:
    """Whether a sandbox was ever started in this directory."""
    return (directory / "lock").is_file()


def read(directory: Path) -> State | None:
    """The last state that was written, or None."""
    try:
        return State.model_validate_json((directory / "state.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write(directory: Path, state: State) -> None:
    """Replace the state in one act."""
    new = directory / "state.json.new"
    new.write_text(json.dumps(state.model_dump(mode="json"), indent=2) + "\n")
    new.replace(directory / "state.json")


def forget(directory: Path) -> None:
    """Remove the state: nothing runs."""
    (directory / "state.json").unlink(missing_ok=True)


def leftovers(directory: Path, proc: Path = PROC) -> set[ProcessId]:
    """The servers of the sandbox that still run, and what they started; never ourselves."""
    mark = os.fsencode(f"{MARK}={directory}")
    state = read(directory)
    named = {server.process for server in state.servers if runs(server.process, proc)} if state else set()
    return named | _marked(mark, proc)


def _marked(mark: bytes, proc: Path) -> set[ProcessId]:
    found = set()
    for pid in (int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal()):
        # It may end while we look; those of other users we may not look at are not ours.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            process = ProcessId(pid, start_time(pid, proc))
            marked = mark in (proc / str(pid) / "environ").read_bytes().split(b"\0")
            if marked and pid != os.getpid() and runs(process, proc):
                found.add(process)
    return found


async def end(find: Callable[[], set[ProcessId]]) -> int:
    """Kill whatever `find` finds, until it finds nothing more; returns how many there were."""
    killed: set[ProcessId] = set()
    deadline = time.monotonic() + END_LIMIT
    while processes := await asyncio.to_thread(find):
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in sorted(processes))
            raise Failed(f"These processes of the sandbox cannot be ended: {pids}.")
        killed |= {process for process in processes if send(process, signal.SIGKILL)}
        await wait_until_gone(processes, 1.0)
    return len(killed)


def clear(directory: Path) -> None:
    """Remove what a reboot would remove of servers that were killed: the folder `run`, and sockets anywhere."""
    shutil.rmtree(directory / "run", ignore_errors=True)
    for path in directory.rglob("*"):
        if path.is_socket():
            path.unlink(missing_ok=True)
