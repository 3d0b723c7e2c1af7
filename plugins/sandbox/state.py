"""The lock, the state file and the processes of a sandbox.

A process is always identified by its pid *and* its start time, so that a reused pid is never mistaken for one of ours.
The processes of a killed sandbox are named by its state file or carry `MARK` in their environment. Guests carry no
mark: `libvirtd.processes` finds them by their namespace.
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

from pvcd import Conflict, Failed, programs

MARK = "PVCD_SANDBOX"
"""The environment variable that each server inherits; it holds the absolute path of the sandbox's directory."""

PROC = Path("/proc")
END_SECONDS = 10.0


class ProcessId(NamedTuple):
    """A process, told apart from a later one with the same pid."""

    pid: int
    started: int
    """Clock ticks since boot, from /proc/PID/stat."""


class Phase(StrEnum):
    """The phases of a server."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"


class Server(BaseModel):
    """One server, as its supervisor last saw it."""

    model_config = ConfigDict(frozen=True)

    name: str
    process: ProcessId
    argv: tuple[str, ...]
    port: int | None
    phase: Phase
    since: float
    """The time when it entered its phase, in seconds since 1970."""
    restarts: int


class State(BaseModel):
    """The content of state.json."""

    model_config = ConfigDict(frozen=True)

    supervisor: ProcessId
    ready: bool
    ports: dict[str, int]
    servers: tuple[Server, ...]


def api_address(ports: Mapping[str, int]) -> str:
    """Return the base URL of the sandbox's API."""
    return f"http://127.0.0.1:{ports['api']}/api/v1"


def start_time(pid: int, proc: Path = PROC) -> int:
    """Return when a process (or zombie) was started, in clock ticks since boot, or 0 if there is none."""
    fields = programs.stat_fields(pid, proc)
    return int(fields[19]) if fields else 0


def runs(process: ProcessId, proc: Path = PROC) -> bool:
    """Return whether a process still runs; a zombie does not."""
    fields = programs.stat_fields(process.pid, proc)
    return bool(fields) and int(fields[19]) == process.started and fields[0] not in ("Z", "X")


def program(process: ProcessId, proc: Path = PROC) -> str:
    """Return the name of the program that a process runs, or "" if the process has ended."""
    try:
        return (proc / str(process.pid) / "comm").read_text().strip() if runs(process, proc) else ""
    except (FileNotFoundError, ProcessLookupError):
        return ""


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; return False if it has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor is bound to the process that has the pid now, so look only after it was opened.
        if not runs(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


async def wait_until_gone(processes: Iterable[ProcessId], seconds: float) -> bool:
    """Return True as soon as none of the processes runs, or False after `seconds`."""
    end = time.monotonic() + seconds
    waiting = list(processes)
    while waiting := [process for process in waiting if runs(process)]:
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, which the kernel releases when this process ends in any way.

    Raises `Conflict` when another process holds it.
    """
    with (directory / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"Cannot use the sandbox in {directory}: in use by {_user(directory)}.") from None
        yield


def _user(directory: Path) -> str:
    state = read(directory)
    return f"process {state.supervisor.pid}" if state and runs(state.supervisor) else "another process"


def make(directory: Path) -> None:
    """Make the directory of a sandbox; refuse one with other files, because a sandbox removes files in its own."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _close(directory)
        (directory / "lock").touch()
        (directory / "log").mkdir(exist_ok=True)
    except OSError as error:
        raise Failed(f"Cannot create the directory {directory}: {error.strerror}.") from error


def _close(directory: Path) -> None:
    """Keep other users out of the directory, which holds passwords and the sockets of servers that run as root."""
    ours = directory.stat().st_uid == os.geteuid()
    if any(directory.iterdir()) and not (ours and is_sandbox(directory)):
        what = "it holds other files" if ours else "it belongs to another user"
        raise Conflict(f"Cannot create a sandbox in {directory}: {what}. Choose another directory.")
    os.chown(directory, os.geteuid(), os.getegid())
    directory.chmod(0o700)
    if not ours and any(directory.iterdir()):  # made by its former owner in the meantime
        raise Conflict(f"Cannot create a sandbox in {directory}: it holds other files. Choose another directory.")


def is_sandbox(directory: Path) -> bool:
    """Return whether a sandbox was ever started in this directory."""
    return (directory / "lock").is_file()


def read(directory: Path) -> State | None:
    """Return the last state that was written, or None."""
    try:
        return State.model_validate_json((directory / "state.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    except PermissionError:
        raise Failed(f"Cannot read the state of the sandbox in {directory}: only root can. Use sudo.") from None


def write(directory: Path, state: State) -> None:
    """Replace the state file atomically."""
    new = directory / "state.json.new"
    new.write_text(json.dumps(state.model_dump(mode="json"), indent=2) + "\n")
    new.replace(directory / "state.json")


def forget(directory: Path) -> None:
    """Remove the state file, because nothing runs."""
    (directory / "state.json").unlink(missing_ok=True)


def processes(directory: Path, proc: Path = PROC) -> set[ProcessId]:
    """Return the running servers of a sandbox and the processes that they started, without this process."""
    mark = os.fsencode(f"{MARK}={directory}")
    state = read(directory)
    named = {server.process for server in state.servers if runs(server.process, proc)} if state else set()
    return named | _marked(mark, proc)


def _marked(mark: bytes, proc: Path) -> set[ProcessId]:
    found = set()
    for pid in (int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal()):
        # A process may end in the meantime, and one that we may not read is not ours.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            process = ProcessId(pid, start_time(pid, proc))
            marked = mark in (proc / str(pid) / "environ").read_bytes().split(b"\0")
            if marked and pid != os.getpid() and runs(process, proc):
                found.add(process)
    return found


async def end(find: Callable[[], set[ProcessId]]) -> int:
    """Kill the processes that `find` returns until it returns none; return how many were killed."""
    killed: set[ProcessId] = set()
    deadline = time.monotonic() + END_SECONDS
    while found := await asyncio.to_thread(find):
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in sorted(found))
            raise Failed(f"Cannot end processes of the sandbox: still running after SIGKILL: {pids}.")
        killed |= {process for process in found if send(process, signal.SIGKILL)}
        await wait_until_gone(found, 1.0)
    return len(killed)


def clear(directory: Path) -> None:
    """Remove the runtime files of killed servers, as a reboot would: the folder `run`, and all sockets."""
    shutil.rmtree(directory / "run", ignore_errors=True)
    for path in directory.rglob("*"):
        if path.is_socket():
            path.unlink(missing_ok=True)
