"""Run a program from an argument vector, with a deadline and bounded output.

The program gets its own session and process group. The group is killed when the deadline passes, when the caller is
cancelled, or when it writes too much; the kernel kills the program when this process ends. No shell reads its
arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from asyncio import SubprocessTransport
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pvcd.errors import Failed, TimedOut
from pvcd.programs.supervise import bound, ended_within, ending, kill_group, not_executed

MAX_OUTPUT_BYTES = 16 * 1024 * 1024
"""A program that writes more to stdout, or to stderr, is ended."""

_REAP_SECONDS = 5.0


class ProgramFailed(Failed):
    """A program failed or could not be started."""

    code = "program-failed"


class TooMuchWritten(ProgramFailed):
    """A program was ended because it wrote too much."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended and what it wrote."""

    returncode: int
    stdout: bytes
    stderr: bytes


async def run(
    argv: Sequence[str],
    *,
    timeout: float,
    input: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: str | None = None,
    inherit: bool = True,
    max_output: int = MAX_OUTPUT_BYTES,
    pass_fds: Collection[int] = (),
    check: bool = True,
    grace: float = 0.0,
) -> Result:
    """Run a program to its end, in the directory `cwd`. `environment` is added to that of this process, unless
    `inherit` is false; messages are in English in any case. A program that is ended loses its pipes; SIGKILL follows,
    `grace` seconds after SIGTERM. If this process ends first, the kernel kills the program, but not a daemon that the
    program has made of itself.

    Raises `ProgramFailed` when the program is missing, writes too much or (with `check`) ends with a status other
    than 0, and `TimedOut` when it takes longer than `timeout` seconds.
    """
    stdin = DEVNULL if input is None else PIPE
    env = {**(os.environ if inherit else {}), "LC_ALL": "C.UTF-8", **(environment or {})}
    process = await start(bound(argv), env=env, cwd=cwd, stdin=stdin, stdout=PIPE, stderr=PIPE, pass_fds=pass_fds)
    result = None
    try:
        async with asyncio.timeout(timeout):
            result = await _finish(process, argv[0], input, max_output)
    except TimeoutError:
        raise TimedOut(f"{_name(argv[0])} did not finish within {timeout:g} s and was ended.") from None
    finally:
        if result is None:
            await _end(process, grace)
    if reason := not_executed(argv[0], result.returncode, result.stderr):
        raise _unable(argv[0], reason)
    if check and result.returncode:
        raise ProgramFailed(_sentence(argv[0], result))
    return result


async def start(argv: Sequence[str], **options: Any) -> Process:
    """Start a program in its own process group; the caller ends it. `options` are those of asyncio.

    Raises `ProgramFailed` when it cannot be started. If the caller is cancelled meanwhile, the program is ended.
    """
    creation = asyncio.create_subprocess_exec(*argv, start_new_session=True, **options)
    starting = asyncio.ensure_future(creation)
    try:
        return await asyncio.shield(starting)
    except OSError as error:
        raise _unable(argv[0], error.strerror or str(error)) from error
    except asyncio.CancelledError:
        # Cancelled while it connects the pipes, asyncio would wait forever (python/cpython#119710).
        with contextlib.suppress(OSError):
            await _end(await starting)
        raise


def _unable(program: str, reason: str) -> ProgramFailed:
    """Return the error for a program that cannot be started."""
    if reason == os.strerror(errno.ENOENT):
        return ProgramFailed(f"Cannot run {program!r}: it is not installed.", code="program-missing")
    return ProgramFailed(f"Cannot run {program!r}: {reason}.")


async def _finish(process: Process, program: str, input: bytes | None, max_output: int) -> Result:
    """Feed and read the program until it has ended."""
    assert process.stdout is not None and process.stderr is not None  # noqa: S101
    readers = [asyncio.create_task(_read(stream, program, max_output)) for stream in (process.stdout, process.stderr)]
    feeding = [asyncio.create_task(_feed(process.stdin, input or b""))] if process.stdin else []
    work = [*readers, *feeding]
    # Not a task group: Python 3.11.2 leaves the caller's task marked as cancelled when a member fails.
    try:
        await asyncio.gather(*work)
    finally:
        for each in work:
            each.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    stdout, stderr = (reader.result() for reader in readers)
    return Result(await process.wait(), stdout, stderr)


async def _read(stream: asyncio.StreamReader, program: str, max_output: int) -> bytes:
    chunks: list[bytes] = []
    room = max_output
    while chunk := await stream.read(65536):
        room -= len(chunk)
        if room < 0:
            raise TooMuchWritten(f"{_name(program)} wrote more than {max_output} bytes and was ended.")
        chunks.append(chunk)
    return b"".join(chunks)


async def _feed(stdin: asyncio.StreamWriter, input: bytes) -> None:
    """Write the input; a program need not read all of it."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(input)
        await stdin.drain()
    stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await stdin.wait_closed()


async def _end(process: Process, grace: float = 0.0) -> None:
    """Kill the program's group, even if only its children are left, and reap it."""
    transport: SubprocessTransport = process._transport  # type: ignore[attr-defined]
    # A descendant in its own session may still hold the pipes, and asyncio would wait for their end: close this side.
    for pipe in filter(None, map(transport.get_pipe_transport, range(3))):
        pipe.close()
    try:
        if grace:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await ended_within(process, grace)
    finally:
        kill_group(process)
        transport.close()
    await ended_within(process, _REAP_SECONDS)  # a process that hangs in the kernel is reaped later


def _sentence(program: str, result: Result) -> str:
    how = ending(result.returncode).replace("ended with", "failed with")
    text = result.stderr.decode(errors="replace")
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"{_name(program)} {how}" + (f": {line[:300]}" if line else ".")


def _name(program: str) -> str:
    return os.path.basename(program)
