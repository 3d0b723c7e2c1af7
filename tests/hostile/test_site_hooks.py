"""Whatever a hook does, the client gets a sentence in time, and nothing of the hook is left."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pvcd.declare.operations import SITE_HOOKS, Operation
from pvcd.errors import HookFailed, HookRefused
from pvcd.testing import SimulatedCluster
from tests.contract.sitehooks import FolderBench, folder, until
from tests.integration.faults import processes

__all__ = ["folder"]
LIMIT = 2.0
OPERATION = Operation("node-flush", {"node": "hv1"})
PLACE = "node-flush.pre.d/50-hostile"


@pytest.fixture
async def cluster(folder: FolderBench) -> AsyncIterator[SimulatedCluster]:
    """An API with the hooks of a directory, each of which has two seconds."""
    sections = {"hooks": {**folder.settings, "seconds": LIMIT, "limits": {"node-ready.pre": 0.2}}}
    others = ("ceph", "network", "provisioner", "vm")
    async with SimulatedCluster([], [], {SITE_HOOKS: folder.open}, others, **sections) as cluster:
        yield cluster


def lingering() -> list[str]:
    """The processes of hooks, which all know their event."""
    found = []
    for pid in processes():  # and not those of tests in other networks, which run at the same time
        process = Path(f"/proc/{pid}")
        try:
            if b"PVC_EVENT=" in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


async def ask(cluster: SimulatedCluster, operation: Operation = OPERATION) -> None:
    await cluster.api[SITE_HOOKS].ask(cluster.api, operation)


async def sentence(cluster: SimulatedCluster, operation: Operation = OPERATION) -> str:
    """Return the sentence that the client gets; also check for leftovers, and that the next hook works."""
    began = time.monotonic()
    with pytest.raises((HookFailed, HookRefused)) as raised:
        await ask(cluster, operation)
    assert time.monotonic() - began < 30
    assert lingering() == []
    return raised.value.sentence


HOSTILE: dict[str, tuple[str, str]] = {
    "sleeps for ever": ("sleep 1000", "failed: it did not finish within 2 s"),
    "ignores TERM": ("trap '' TERM INT HUP\nwhile :; do sleep 1; done", "failed: it did not finish within 2 s"),
    "closes its descriptors": ("exec <&- >&- 2>&-\nsleep 1000", "failed: it did not finish within 2 s"),
    "stops itself": ("kill -STOP $$", "failed: it did not finish within 2 s"),
    "ends by a signal": ("kill -SEGV $$", "failed: it was killed by SIGSEGV"),
    "kills itself": ("kill -KILL $$", "failed: it was killed by SIGKILL"),
    "kills everybody": ("sleep 1000 & kill -KILL -1; exit 6", "refused it: it ended with exit status 6"),
    "kills what started it": ("kill -KILL 1 $PPID; exit 3", "refused it: it ended with exit status 3"),
    "prints 10 GB": ("head -c 10G /dev/zero", "failed: it wrote more than 1 MiB"),
    "prints to stderr for ever": ("yes >&2", "failed: it wrote more than 1 MiB"),
    "leaves processes": (
        "sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &)\nexit 4",
        "refused it: it ended with exit status 4",
    ),
    "fork bomb": ("b() { b | b & }; b; sleep 1000", "failed: it started more than 512 processes at once"),
    "fills its /tmp": (
        "head -c 1G /dev/zero >file 2>/dev/null; df --output=avail . | tail -1 >&2; exit 1",
        "refused it: 0",
    ),
    "reads nothing": ("exit 5", "refused it: it ended with exit status 5"),
    "writes odd words": (r"printf '\n \n\033[31m no\tluck \000\377!\nmore' >&2; exit 1", "refused it: [31m no luck"),
    "a long speech": ("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", "refused it: " + "x" * 300 + "."),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.alone] if name == "fork bomb" else []) for name in HOSTILE]
)
async def test_a_hostile_hook_is_killed_and_reported(folder: FolderBench, cluster: SimulatedCluster, name: str) -> None:
    text, words = HOSTILE[name]
    folder.script(PLACE, text, interpreter="/bin/bash")
    assert f"site hook {PLACE!r} {words}" in await sentence(cluster)
    (run,) = folder.ended()
    assert run.state == "failed" and run.sentence and len(run.sha256) == 64
    assert len(run.stdout) < 70_000 and len(run.stderr) < 70_000


async def test_a_file_that_is_not_executable_is_reported(folder: FolderBench, cluster: SimulatedCluster) -> None:
    path = folder.script(PLACE, "", interpreter="/no/such/shell")
    assert "it cannot be started: the interpreter that its first line names does not exist" in await sentence(cluster)
    path.write_text("echo no first line")
    assert "it cannot be started: it is no program" in await sentence(cluster)
    path.write_bytes(b"\x7fELF" + bytes(100))
    assert "it cannot be started: " in await sentence(cluster)


async def test_a_hook_that_other_users_can_change_refuses_the_operation(
    folder: FolderBench, cluster: SimulatedCluster
) -> None:
    path = folder.script(PLACE, "exit 0", mode=0o777)
    assert f"site hook {PLACE!r} failed: it may be written by others" in await sentence(cluster)
    path.unlink()
    path.symlink_to("/bin/true")
    assert f"site hook {PLACE!r} failed: it is a symbolic link" in await sentence(cluster)
    path.unlink()
    folder.script(PLACE, "exit 0")
    await ask(cluster)
    folder.directory.chmod(0o777)
    assert f"Cannot do 'node-flush': {folder.directory}" in await sentence(cluster)


async def test_a_hook_that_is_swapped_constantly_runs_in_its_safe_version_or_not_at_all(
    folder: FolderBench, cluster: SimulatedCluster
) -> None:
    bad = folder.script("elsewhere.pre.d/50-bad", f"touch {folder.directory}/harm")
    path = folder.script(PLACE, "exit 0")
    good, link = path.with_name("good"), path.with_name("link")
    path.rename(good)
    link.symlink_to(bad)
    ended = asyncio.Event()

    def swap() -> None:
        for source in (good, link):
            part = path.with_name(".part")
            part.unlink(missing_ok=True)
            os.symlink(os.readlink(source), part) if source.is_symlink() else os.link(source, part)
            part.replace(path)

    async def swap_for_ever() -> None:
        while not ended.is_set():
            await asyncio.to_thread(swap)

    swapping = asyncio.ensure_future(swap_for_ever())
    for _ in range(30):
        try:
            await ask(cluster)
        except HookFailed as error:
            assert "is a symbolic link" in error.sentence
    ended.set()
    await swapping
    assert not (folder.directory / "harm").exists()


async def test_the_time_limit_can_be_set_per_operation(folder: FolderBench, cluster: SimulatedCluster) -> None:
    folder.script("node-ready.pre.d/50-slow", "sleep 1")
    said = await sentence(cluster, Operation("node-ready", {"node": "hv1"}))
    assert (
        said == "Cannot do 'node-ready': site hook 'node-ready.pre.d/50-slow' failed: it did not finish within 0.2 s."
    )


async def test_a_hook_ends_with_the_request_of_a_client_that_hangs_up(
    folder: FolderBench, cluster: SimulatedCluster
) -> None:
    folder.script(PLACE, "sleep 1000")
    asking = asyncio.ensure_future(ask(cluster))
    await until(lambda: any("sleep" in command for command in lingering()))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: not lingering())
    await until(lambda: [run.sentence for run in folder.ended()] == ["the request was cancelled"])


async def test_no_hook_runs_after_the_first_that_refuses(folder: FolderBench, cluster: SimulatedCluster) -> None:
    folder.script("node-flush.pre.d/10-yes", "exit 0")
    folder.script("node-flush.pre.d/20-no", "echo no >&2; exit 1")
    folder.script("node-flush.pre.d/30-never", "exit 0")
    assert "20-no' refused it: no." in await sentence(cluster)
    assert [(run.hook, run.state) for run in folder.ended()] == [("10-yes", "ok"), ("20-no", "failed")]


async def test_the_number_of_concurrent_hooks_is_limited(folder: FolderBench, cluster: SimulatedCluster) -> None:
    folder.script(PLACE, "sleep 0.1")
    await asyncio.gather(*(ask(cluster) for _ in range(60)))
    assert len(folder.ended()) == 60 and lingering() == []


async def test_an_operation_fails_in_time_if_too_many_hooks_run(
    folder: FolderBench, make_cluster: Callable[..., SimulatedCluster]
) -> None:
    folder.script(PLACE, "sleep 5")
    async with make_cluster(phase_seconds=0.5) as cluster:
        asking = [asyncio.ensure_future(ask(cluster)) for _ in range(17)]
        done, others = await asyncio.wait(asking, return_when=asyncio.FIRST_EXCEPTION)
        assert [str(each.exception()) for each in done] == [
            "Cannot do 'node-flush': too many site hooks are running. Try again later."
        ]
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    await until(lambda: not lingering())


async def test_a_hook_that_becomes_unsafe_while_it_waits_is_not_run(
    folder: FolderBench, cluster: SimulatedCluster
) -> None:
    folder.script("node-flush.post.d/10-slow", "sleep 0.5")
    folder.script("node-flush.post.d/20-next", "exit 0")
    await cluster.api[SITE_HOOKS].notify(cluster.api, OPERATION)
    folder.directory.chmod(0o777)
    await until(lambda: len(folder.ended()) == 2)
    assert "may be written by others" in folder.ended()[1].sentence


async def test_the_input_of_a_hook_may_be_large(folder: FolderBench, cluster: SimulatedCluster) -> None:
    folder.script(PLACE, "wc -c >&2; exit 1")
    document = "x" * 2_000_000
    large = await sentence(cluster, Operation("node-flush", {"node": "hv1", "domain-state": document}))
    assert int(large.rpartition(": ")[2].rstrip(".")) > len(document)
    assert folder.ended()[0].document is None


async def test_a_hook_inherits_no_environment_descriptors_or_processes(
    folder: FolderBench, cluster: SimulatedCluster
) -> None:
    folder.script(PLACE, "env >&2; ls /proc/self/fd >&2; pwd >&2; ps -e | wc -l >&2; exit 1")
    with pytest.raises(HookRefused):
        await ask(cluster)
    (run,) = folder.ended()
    lines = run.stderr.splitlines()
    names = {line.partition("=")[0] for line in lines if "=" in line}
    assert {name for name in names if not name.startswith("PVC_")} <= {"PATH", "LC_ALL", "PWD", "SHLVL", "_"}
    descriptors = {line for line in lines if line.isdecimal()}
    assert "/tmp/run" in lines and int(lines[-1]) < 10
    assert len(descriptors - {lines[-1]}) <= 5  # three, the script, and that of ls itself


async def test_hooks_run_even_if_their_records_cannot_be_written(
    folder: FolderBench, cluster: SimulatedCluster, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(Path(folder.settings["records"]).write_text, "in the way")
    folder.script(PLACE, "exit 0")
    folder.script("node-flush.post.d/50-told", f"touch {folder.directory}/told")
    await ask(cluster)
    await cluster.api[SITE_HOOKS].notify(cluster.api, OPERATION)
    await until(lambda: (folder.directory / "told").exists())
    assert caplog.text.count("cannot keep the runs of site hooks") == 1


async def test_pending_hooks_of_an_ended_daemon_are_run_by_the_next_one(
    folder: FolderBench, make_cluster: Callable[..., SimulatedCluster]
) -> None:
    folder.script("node-flush.post.d/50-told", f'echo "$PVC_ATTEMPT" >>{folder.file}')
    async with make_cluster() as first:
        await first.api[SITE_HOOKS].notify(first.api, OPERATION)
        await until(lambda: len(folder.ended()) == 1)
    (run,) = folder.ended()
    over = run.process.model_copy(update={"started": 1})
    for number, (state, attempt, phase) in enumerate(
        [("running", 1, "post"), ("waiting", 2, "post"), ("running", 3, "post"), ("running", 1, "pre")]
    ):
        values = {"id": f"run-{number}", "process": over, "state": state, "attempt": attempt, "phase": phase}
        folder.runs.save(run.model_copy(update=values))
    async with make_cluster():
        await until(lambda: len(folder.ended()) == 4)
    assert sorted(folder.file.read_text().split()) == ["1", "2", "3"]
    assert folder.runs.find("run-2").sentence == "its daemon ended with it"


async def test_a_daemon_starts_although_another_one_holds_the_records(
    folder: FolderBench, make_cluster: Callable[..., SimulatedCluster], caplog: pytest.LogCaptureFixture
) -> None:
    records = Path(folder.settings["records"])
    await asyncio.to_thread(records.mkdir)
    other = os.open(records, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(other, fcntl.LOCK_EX)
    cluster = make_cluster()
    starting = asyncio.ensure_future(cluster.__aenter__())
    async with asyncio.timeout(30):
        while not (await asyncio.wait([starting], timeout=0.01))[0]:
            await cluster.clock.advance(0.1)
    os.close(other)
    await cluster.__aexit__()
    assert "pending ones wait for the next start" in caplog.text


@pytest.fixture
def make_cluster(folder: FolderBench) -> Callable[..., SimulatedCluster]:
    """One API after the other."""
    others = ("ceph", "network", "provisioner", "vm")
    return lambda **more: SimulatedCluster([], [], {SITE_HOOKS: folder.open}, others, hooks={**folder.settings, **more})
