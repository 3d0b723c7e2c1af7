"""Running real programs."""

import asyncio
import os
import signal
import sys
import time

import pytest

from pvcd.errors import TimedOut
from pvcd.programs.runner import ProgramFailed, run
from pvcd_plugins.sandbox.state import ProcessId, runs, send, start_time, wait_until_gone


def python(code, *arguments):
    return [sys.executable, "-c", code, *arguments]


FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"])
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1], sys.argv[1] + ".done")
time.sleep(float(sys.argv[2]))
"""


async def family(path):
    """The program and its child, when both are there."""
    async with asyncio.timeout(10):
        while not path.with_suffix(".done").exists():  # noqa: ASYNC110 - a condition of other processes
            await asyncio.sleep(0.01)
    pids = [int(pid) for pid in path.with_suffix(".done").read_text().split()]
    return [ProcessId(pid, start_time(pid)) for pid in pids]


async def test_a_program_gets_its_input_and_its_output_is_returned():
    result = await run(["cat"], timeout=5, input=b"a\0b" * 100_000)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"a\0b" * 100_000, b"")


async def test_a_program_without_input_reads_nothing():
    assert (await run(["cat"], timeout=5)).stdout == b""


async def test_a_program_may_ignore_its_input():
    assert (await run(["true"], timeout=5, input=b"x" * 1_000_000)).returncode == 0


async def test_the_environment_extends_ours(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    result = await run(["env"], timeout=5, environment={"ADDED": "2"})
    assert {b"KEPT=1", b"ADDED=2", b"LC_ALL=C.UTF-8"} <= set(result.stdout.splitlines())


async def test_a_failure_is_a_sentence():
    with pytest.raises(ProgramFailed) as error:
        await run(["ls", "/nowhere"], timeout=5)
    assert error.value.code == "program-failed"
    assert error.value.sentence.startswith("ls failed with exit status 2: ls: cannot access '/nowhere'")


async def test_an_unchecked_failure_is_a_result():
    assert (await run(["false"], timeout=5, check=False)).returncode == 1


async def test_a_missing_program_is_named():
    with pytest.raises(ProgramFailed, match="Cannot run 'no-such-program': it is not installed") as error:
        await run(["no-such-program"], timeout=5)
    assert error.value.code == "program-missing"


async def test_a_file_that_is_not_executable_is_a_sentence(tmp_path):
    with pytest.raises(ProgramFailed, match=r"Cannot run .*: Permission denied"):
        await run([str(tmp_path)], timeout=5)


async def test_after_the_deadline_the_program_and_its_children_are_killed(tmp_path):
    task = asyncio.create_task(run(python(FAMILY, str(tmp_path / "f"), "1000"), timeout=2))
    processes = await family(tmp_path / "f")
    with pytest.raises(TimedOut, match="did not finish within 2 s"):
        await task
    assert await wait_until_gone(processes, 5)


async def test_children_that_keep_the_output_open_are_killed_at_the_deadline(tmp_path):
    task = asyncio.create_task(run(python(FAMILY, str(tmp_path / "f"), "0"), timeout=2))
    processes = await family(tmp_path / "f")
    with pytest.raises(TimedOut):
        await task
    assert await wait_until_gone(processes, 5)


@pytest.mark.parametrize("steps", range(12))
async def test_a_caller_canceled_while_the_program_starts_ends_at_once(steps):
    task = asyncio.ensure_future(run(["sleep", "1000"], timeout=60))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait([task])
    assert task.cancelled()


async def test_canceling_the_caller_kills_the_program(tmp_path):
    task = asyncio.create_task(run(python(FAMILY, str(tmp_path / "f"), "1000"), timeout=60))
    processes = await family(tmp_path / "f")
    assert all(runs(one) for one in processes)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await wait_until_gone(processes, 5)


@pytest.mark.alone
async def test_a_descendant_in_another_session_does_not_block_the_caller(tmp_path):
    code = """
import subprocess, sys
print(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid, file=open(sys.argv[1], "w"))
"""
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        await run(python(code, str(tmp_path / "pid")), timeout=1)
    assert time.monotonic() - begun < 4
    pid = int((tmp_path / "pid").read_text())
    assert send(ProcessId(pid, start_time(pid)), signal.SIGKILL)


async def test_a_program_with_endless_output_is_killed():
    with pytest.raises(ProgramFailed, match="yes wrote more than 1000000 bytes and was ended"):
        await run(["yes"], timeout=30, max_output=1_000_000)


async def test_after_a_program_that_wrote_too_much_the_caller_is_not_canceled():
    with pytest.raises(ProgramFailed, match="wrote more than"):
        await run(["yes"], timeout=30, input=b"", max_output=1000)
    assert asyncio.current_task().cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)


@pytest.mark.parametrize("grace", [0.0, 10.0])
async def test_a_program_may_end_itself_within_its_grace(tmp_path, grace):
    script = "trap 'echo >$0; exit' TERM; echo x; while :; do sleep 0.05; done"
    with pytest.raises(TimedOut):
        await run(["sh", "-c", script, str(tmp_path / "ended")], timeout=0.5, grace=grace)
    assert (tmp_path / "ended").exists() == bool(grace)


async def test_a_program_with_grace_that_writes_on_is_killed_after_it():
    script = "trap '' TERM PIPE; while :; do echo x 2>/dev/null; done"
    with pytest.raises(ProgramFailed, match="wrote more than 100 bytes"):
        await run(["sh", "-c", script], timeout=10, max_output=100, grace=0.2)


async def test_a_program_can_get_descriptors_and_an_empty_environment(tmp_path):
    (tmp_path / "text").write_text("hello")
    file = os.open(tmp_path / "text", os.O_RDONLY)
    try:
        result = await run(
            ["sh", "-c", f"cat /dev/fd/{file}; env"],
            timeout=20,
            environment={"A": "1"},
            inherit=False,
            pass_fds=(file,),
        )
    finally:
        os.close(file)
    words = {word.partition("=")[0] for word in result.stdout.decode().removeprefix("hello").split()}
    assert result.stdout.startswith(b"hello") and words <= {"A", "LC_ALL", "PWD", "SHLVL", "_", "OLDPWD"}
