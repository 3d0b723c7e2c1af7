"""The door to other programs: kept running, bound to this process, and confined so that nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pvcd.process import stat_fields
from pvcd.programs import ProgramLocks, confine, run, start, supervise

DEAF_FAMILY = "trap '' TERM; sleep 1000 & echo $$ $! > {file}.part; mv {file}.part {file}; while :; do wait; done"


def lives(pid: int) -> bool:
    fields = stat_fields(pid)
    return bool(fields) and fields[0] not in "ZX"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a condition of other processes
            await asyncio.sleep(0.01)


def marked(mark: str) -> list[int]:
    """The processes with this word in their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


async def pids(file: Path) -> list[int]:
    await until(lambda: file.exists())
    return list(map(int, (await asyncio.to_thread(file.read_text)).split()))


async def confined(
    tmp_path: Path, text: str, *, seconds: float = 10, interpreter: str = "/bin/sh"
) -> tuple[dict[str, object], bytes]:
    """Run a script confined; return how it ended and what it wrote."""
    script = tmp_path / "script"
    script.write_text(f"#!{interpreter}\n{text}")
    script.chmod(0o755)
    file = os.open(script, os.O_RDONLY)
    answers, report = os.pipe()
    try:
        argv = [sys.executable, "-I", "-S", confine.__file__, str(os.getpid()), str(report), str(file), str(seconds)]
        result = await run([*argv, "script", "word"], timeout=30, pass_fds=(file, report))
    finally:
        os.close(file)
        os.close(report)
    with os.fdopen(answers, "rb") as pipe:
        return json.loads(pipe.read()), result.stdout


# Supervised


async def test_a_program_is_run_again_after_growing_pauses() -> None:
    ends: list[tuple[str, float]] = []

    async def once() -> str:
        process = await start(["sh", "-c", "exit 3"])
        return supervise.ending(await process.wait())

    keeper = asyncio.ensure_future(supervise.keep(once, lambda *end: ends.append(end), longest_seconds=0.4))
    await until(lambda: len(ends) == 4)
    keeper.cancel()
    assert [how for how, _ in ends] == ["ended with exit status 3"] * 4
    assert [pause for _, pause in ends] == [0.2, 0.4, 0.4, 0.4]


async def test_the_pause_is_short_again_after_a_calm_run() -> None:
    pauses: list[float] = []
    runs = iter([0.0, 0.0, 0.2, 0.0])

    async def once() -> str:
        await asyncio.sleep(next(runs))
        return "ended"

    keeper = asyncio.ensure_future(supervise.keep(once, lambda _, pause: pauses.append(pause), calm_seconds=0.1))
    await until(lambda: len(pauses) == 4)
    keeper.cancel()
    assert pauses == [0.2, 0.4, 0.2, 0.4]


async def test_a_process_that_ends_at_sigterm_is_stopped_in_time() -> None:
    process = await start(["sleep", "1000"])
    assert await supervise.stop(process, 10)
    assert supervise.ending(process.returncode) == "was killed by SIGTERM"
    assert await supervise.stop(process, 10)


async def test_a_process_that_ignores_sigterm_is_killed_with_its_group(tmp_path: Path) -> None:
    process = await start(["sh", "-c", DEAF_FAMILY.format(file=tmp_path / "pids")])
    family = await pids(tmp_path / "pids")
    assert not await supervise.stop(process, 0.2)
    await until(lambda: not any(map(lives, family)))


BOUND = "import subprocess, sys; from pvcd.programs import supervise; subprocess.run(supervise.bound(sys.argv[1:]))"


async def test_a_bound_process_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    child = ["sh", "-c", f"echo $$ > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/pids; sleep 1000"]
    process = await start([sys.executable, "-c", BOUND, *child])
    (pid,) = await pids(tmp_path / "pids")
    process.kill()
    await process.wait()
    await until(lambda: not lives(pid))


async def test_a_bound_process_whose_starter_ended_before_it_was_bound_is_not_executed(tmp_path: Path) -> None:
    code = "import os, sys; from pvcd.programs import supervise\n"
    code += "starter, argv = os.getpid(), supervise.bound(sys.argv[1:])\n"
    code += "if os.fork() == 0:\n while os.getppid() == starter: pass\n os.execvp(argv[0], argv)"
    read, write = os.pipe()
    process = await start([sys.executable, "-c", code, "touch", str(tmp_path / "run")], stdout=write)
    os.close(write)
    await process.wait()
    assert await asyncio.to_thread(os.read, read, 1) == b""
    os.close(read)
    assert not (tmp_path / "run").exists()


async def test_a_program_that_is_run_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    code = "import asyncio, sys; from pvcd.programs import run; asyncio.run(run(sys.argv[1:], timeout=1000))"
    child = ["sh", "-c", f"echo $$ > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/pids; exec sleep 1000"]
    starter = await start([sys.executable, "-c", code, *child])
    (pid,) = await pids(tmp_path / "pids")
    starter.kill()
    await starter.wait()
    await until(lambda: not lives(pid))


# Locked


async def test_a_lock_is_held_until_the_programs_of_its_holder_have_ended(tmp_path: Path) -> None:
    locks = ProgramLocks(tmp_path / "run/lock")
    async with locks.hold("name", 5) as descriptor:
        program = await start(["sleep", "1000"], pass_fds=(descriptor,))
    with pytest.raises(TimeoutError):
        async with locks.hold("name", 0.2):
            pass
    async with locks.hold("other", 0.2):
        program.kill()
    async with locks.hold("name", 5):
        await program.wait()


async def test_one_of_many_has_a_lock_at_a_time(tmp_path: Path) -> None:
    inside = 0

    async def enter() -> None:
        nonlocal inside
        async with ProgramLocks(tmp_path / "lock").hold("name", 20):
            inside += 1
            await asyncio.sleep(0)
            assert inside == 1
            inside -= 1

    await asyncio.gather(*(enter() for _ in range(5)))


async def test_a_killed_holder_leaves_neither_a_lock_nor_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    text = "import asyncio, sys\nfrom pathlib import Path\nfrom pvcd.programs import ProgramLocks\n"
    text += "async def main():\n async with ProgramLocks(Path(sys.argv[1])).hold('name', 5):\n"
    text += "  print(flush=True)\n  await asyncio.sleep(1000)\nasyncio.run(main())"
    holder = await start([sys.executable, "-c", text, str(file)], stdout=asyncio.subprocess.PIPE)
    assert holder.stdout and await holder.stdout.readline()
    with pytest.raises(TimeoutError):
        async with ProgramLocks(file).hold("name", 0.1):
            pass
    holder.kill()
    async with ProgramLocks(file).hold("name", 5):
        await holder.wait()
    assert (os.listdir(tmp_path), file.stat().st_size) == (["lock"], 0)


# Confined


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("exit 0", {"status": 0}),
        ("exit 7", {"status": 7}),
        ("kill -SEGV $$", {"signal": signal.SIGSEGV}),
        ("kill -KILL -1; kill -KILL 1 $PPID; exit 5", {"status": 5}),
    ],
)
async def test_a_confined_program_reports_how_it_ended(tmp_path: Path, text: str, answer: dict[str, int]) -> None:
    assert (await confined(tmp_path, text))[0] == answer


async def test_a_confined_program_has_its_own_processes_and_directories(tmp_path: Path) -> None:
    answer, output = await confined(tmp_path, "pwd; ls /tmp; echo /proc/[0-9]*; echo $0 $1; touch /tmp/left")
    place, inside, processes, words = output.decode().splitlines()
    assert (answer, place, inside) == ({"status": 0}, "/tmp/run", "run")
    assert 2 <= len(processes.split()) <= 4
    assert words.endswith("word")
    assert not (await run(["sh", "-c", "ls /tmp/left || true"], timeout=5)).stdout


async def test_a_confined_program_is_ended_at_its_time_limit(tmp_path: Path) -> None:
    begun = time.monotonic()
    answer, _ = await confined(tmp_path, "trap '' TERM; while :; do sleep 1; done", seconds=0.5)
    assert answer == {"ended": "it did not finish within 0.5 s"}
    assert time.monotonic() - begun < 10


async def test_a_confined_program_may_not_start_many_processes(tmp_path: Path) -> None:
    answer, _ = await confined(tmp_path, "while :; do sleep 1000 & done")
    assert answer == {"ended": f"it started more than {confine.MAX_TASKS} processes at once"}


async def test_a_confined_program_that_cannot_be_started_is_reported(tmp_path: Path) -> None:
    answer, _ = await confined(tmp_path, "", interpreter="/no/such/shell")
    reason = "the interpreter that its first line names does not exist"
    assert answer == {"ended": f"it cannot be started: {reason}"}


async def test_a_confined_program_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    mark = f"confined-{os.getpid()}"
    code = """
import os, subprocess, sys
file, report = os.open(sys.argv[2], os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)
argv = [sys.executable, "-I", "-S", sys.argv[1], str(os.getpid()), str(report), str(file), "60", "script", sys.argv[3]]
subprocess.run(argv, pass_fds=(file, report))
"""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nsetsid sleep 1000 &\nwait\n")
    script.chmod(0o755)
    starter = await start([sys.executable, "-c", code, confine.__file__, str(script), mark])
    await until(lambda: len(marked(mark)) > 3)
    starter.kill()
    await starter.wait()
    await until(lambda: not marked(mark))


async def test_processes_that_a_confined_program_leaves_are_ended(tmp_path: Path) -> None:
    mark = f"leftover-{os.getpid()}"
    answer, _ = await confined(tmp_path, f"setsid sh -c 'sleep 1000; : {mark}' >/dev/null 2>&1 & exit 0")
    assert answer == {"status": 0}
    assert marked(mark) == []
