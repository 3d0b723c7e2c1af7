"""Keep a program running: start it again whenever it ends, and let it end with this process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

FIRST_PAUSE_SECONDS = 0.2
_IF_CHILD = 'test "$PPID" = "$1" && shift && exec "$@"'
"""Executes a program only if its starter did not end before setpriv(1) had asked for the signal."""
_CANNOT_EXECUTE = (126, 127)
"""The exit statuses of sh(1) when it cannot execute a program."""


def bound(argv: Sequence[str], *options: str, number: str = "KILL") -> list[str]:
    """Return a command line for this process to start, which gets this signal when the thread that started it ends.

    `options` are further ones of setpriv(1). A process that changes its user itself would lose the binding.
    """
    return ["setpriv", "--pdeathsig", number, *options, "--", "sh", "-c", _IF_CHILD, "sh", str(os.getpid()), *argv]


def not_executed(program: str, status: int, stderr: bytes) -> str | None:
    """Return why the program of a command line of `bound` could not be executed; None if it could."""
    text = stderr.decode(errors="replace").strip()
    if status in _CANNOT_EXECUTE and text.startswith(said := f"sh: 1: exec: {program}: "):
        reason = text.removeprefix(said)
        return os.strerror(errno.ENOENT) if reason == "not found" else reason
    return None


async def keep(
    run: Callable[[], Awaitable[str]],
    ended: Callable[[str, float], None],
    *,
    longest_seconds: float = 10.0,
    calm_seconds: float = 30.0,
) -> NoReturn:
    """Run again and again; call `ended(how, pause)` between, where `how` is what `run` returned.

    The pause grows, unless the last run took `calm_seconds`.
    """
    loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
    while True:
        begun = loop.time()
        how = await run()
        pause = FIRST_PAUSE_SECONDS if loop.time() - begun > calm_seconds else pause
        ended(how, pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest_seconds)


async def stop(process: Process, seconds: float) -> bool:
    """End a process by SIGTERM, after `seconds` its group by SIGKILL; return whether it ended in time."""
    if process.returncode is not None:
        return True
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    if await ended_within(process, seconds):
        return True
    kill_group(process)
    await process.wait()
    return False


async def ended_within(process: Process, seconds: float) -> bool:
    """Wait until a process has ended; return False when the time has passed."""
    # Not asyncio.timeout(): in a task that is cancelled already, Python 3.11.2 raises CancelledError at its end.
    waiting = asyncio.ensure_future(process.wait())
    await asyncio.wait([waiting], timeout=seconds)
    return not waiting.cancel()


def kill_group(process: Process) -> None:
    """Kill a process and its group. Call it before or right after it is reaped, before its pid is reused."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def ending(status: int | None) -> str:
    """Return how a process ended, as a predicate: `ended with exit status 1`."""
    if status is not None and status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"
