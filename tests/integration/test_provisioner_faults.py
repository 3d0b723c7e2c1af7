"""Whatever is killed while a VM is built, at any step: the task ends in time and names all leftovers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from uuid import UUID

import pytest
from redis import Redis

from pvcd.tasks.dramatiq_queue import DramatiqQueue
from pvcd_plugins.provisioner.steps import STEPS
from tests.integration.cluster import Cluster
from tests.integration.faults import (
    BACK,
    SCRIPT_SECONDS,
    THREADS,
    WRITER,
    Bench,
    Worker,
    children,
    command,
    processes,
    stopped_program,
)
from tests.integration.provisioner import PROVISIONER, Provisioner

NAMES = [step.name for step in sorted(STEPS, key=lambda step: step.order)]
MAPPED = ("after map", "before format", "after format", "before install", "after install", "before unmap")
"""The steps at which volumes are mapped, so that other processes can be killed."""

BEGINNING = "import os, subprocess, time\ndef install(**kwargs):\n    root = kwargs['temporary_directory']\n"
BAD = {
    "raises": ("    raise ValueError('no luck')", "in line 4: ValueError: no luck"),
    "exits": ("    os._exit(3)", "with status 3"),
    "hangs": ("    time.sleep(1000)", f"did not finish within {SCRIPT_SECONDS:g} s"),
    "forks": ("    while True: os.fork()", "more than 4096 processes"),
    "fills": ("    for n in range(1000): open(f'{root}/{n}', 'w')", "No space left on device"),
    "mounts": ("    subprocess.run(['mount', '-t', 'tmpfs', 'x', root], check=True)\n    os._exit(5)", "with status 5"),
    "prints": ("    for n in range(10**4): print('x' * 1000)\n    os._exit(4)", "with status 4"),
}
"""Scripts that end badly, and what is said of each."""


@pytest.fixture(scope="module")
def learnt(provisioner: Provisioner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The bench; the sandbox's own worker is paused meanwhile."""
    provisioner.storage("tight", filesystem_arg="-N=16")  # a file system that is full of a few files
    provisioner.script("writer", WRITER)
    for name, (body, _) in BAD.items():
        provisioner.script(name, BEGINNING + body, storage_template="tight")
    made = Bench(provisioner, tmp_path_factory.mktemp("faults"))
    paused = provisioner.cluster.kill("worker", signal.SIGSTOP)
    try:
        made.worker.start()
        made.learn()
        yield made
    finally:
        made.worker.stop()
        os.kill(paused, signal.SIGCONT)
    made.worker.has_not_stumbled()


@pytest.fixture
def bench(learnt: Bench, cluster: Cluster) -> Iterator[Bench]:
    yield learnt
    learnt.forget()
    learnt.nothing_left()


def test_the_tested_steps_are_those_of_the_api(bench: Bench) -> None:
    plan = bench.cluster.post(f"{PROVISIONER}/create", name="planned", profile="writer", check="true")
    assert [step["name"] for step in plan["steps"]] == NAMES == list(bench.steps)
    assert {f"before {name}" for name in NAMES} <= set(bench.places)


# The worker


@pytest.mark.parametrize("when", ["before", "intended", "after"])
def test_a_worker_killed_at_any_step_leaves_nothing(bench: Bench, when: str) -> None:
    places = [place for place in bench.places if place.startswith(f"{when} ")]
    assert places and len(places) <= THREADS
    tasks = bench.held(places)
    bench.worker.die()
    bench.release()
    bench.worker.start()
    bench.ended(tasks, "FAILURE")


@pytest.mark.parametrize("step", NAMES)
def test_a_worker_killed_during_a_step_leaves_nothing(bench: Bench, step: str) -> None:
    name = f"amid-{step}"
    bench.kill_amid(name, step)
    task = bench.create(name)
    bench.worker.until_dead()
    bench.worker.start()
    bench.ended({name: task}, "FAILURE", "SUCCESS")


def test_a_creation_of_a_killed_worker_that_goes_on_later_leaves_nothing(bench: Bench) -> None:
    task = bench.held(["intended volumes"])
    with stopped_program(bench.cluster, "rbd", "create", "vms/intended-volumes_sda", begin=bench.release) as program:
        bench.worker.die()
        bench.worker.start()
        bench.ended(task, "FAILURE")
    assert not command(program)


def test_a_cancelled_creation_whose_program_has_begun_leaves_nothing(bench: Bench) -> None:
    task = bench.held(["intended volumes"])
    image = "vms/intended-volumes_sda"
    with stopped_program(bench.cluster, "rbd", "create", image, begin=bench.release, ceph_goes_on=False):
        bench.cluster.delete(f"{PROVISIONER}/status/{task['intended-volumes']}")
    bench.ended(task, "CANCELLED")


def test_a_worker_killed_while_undoing_leaves_nothing(bench: Bench) -> None:
    names = {f"undone-{step.name}": f"undo {step.name}" for step in STEPS if f"intended {step.name}" in bench.places}
    for name, place in names.items():
        for each in ("after install", place):
            (bench.folder / f"{name} {each}.hold").touch()
    tasks = {name: bench.create(name) for name in names}
    for name in names:
        bench.until_at(name, "after install")
        bench.cluster.delete(f"{PROVISIONER}/status/{tasks[name]}")
    for name, place in names.items():
        bench.until_at(name, place)
    bench.worker.die()
    bench.release()
    bench.worker.start()
    bench.ended(tasks, "CANCELLED")


# What works for it


def test_a_killed_mapping_process_leaves_nothing(bench: Bench) -> None:
    places = [place for place in bench.places if place in MAPPED]
    assert places == sorted(MAPPED)
    tasks = bench.held(places)
    for pid in processes():
        if command(pid).startswith("qemu-storage-daemon"):
            os.kill(pid, signal.SIGKILL)
    bench.release()
    bench.ended(tasks, "FAILURE")


def test_killed_script_processes_leave_nothing_at_each_level(bench: Bench) -> None:
    tasks = {}
    for depth in range(3):
        name = f"child{depth}"
        tasks[name] = bench.create(name, "sleeper")
        bench.cluster.until(lambda id=tasks[name]: bench.provisioner.doing(id) == "install", BACK)  # type: ignore[misc]
        bench.cluster.until(lambda: "asleep" in bench.log(tasks[name]), BACK)  # noqa: B023
        os.kill(script_process(bench.worker.pid, depth), signal.SIGKILL)
        bench.ended({name: tasks[name]}, "FAILURE")


def script_process(worker: int, depth: int) -> int:
    """One of the processes in which a script runs: the one outside, process 1 of its namespaces, or its own."""
    pid = next(pid for pid in children(worker) if "inside.py" in command(pid))
    for _ in range(depth):
        pid = children(pid)[0]
    return pid


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.alone] if name == "forks" else []) for name in BAD]
)
def test_a_failed_script_fails_the_task_with_its_reason(bench: Bench, name: str) -> None:
    task = bench.create(name, name)
    bench.ended({name: task}, "FAILURE")
    assert BAD[name][1] in bench.provisioner.task(task)["status"]


# What it depends on


def test_a_task_survives_the_loss_of_redis_and_its_messages(bench: Bench) -> None:
    tasks = bench.held(["before volumes", "after install"])
    before = bench.cluster.server("redis")["restarts"]
    with Redis.from_url(bench.cluster.settings["redis"]["url"]) as client:
        client.flushall()
    bench.cluster.kill("redis")
    bench.cluster.until(lambda: bench.cluster.server("redis")["restarts"] > before, BACK)
    bench.release()
    bench.ended(tasks, "SUCCESS")
    assert "Complete the VM: changed" in bench.log(tasks["after-install"])


async def test_a_repeated_message_repeats_nothing(bench: Bench) -> None:
    tasks = bench.held(["before volumes", "after start"])
    queue = DramatiqQueue(bench.cluster.settings["redis"]["url"])
    try:
        for id in [*tasks.values()] * 3:
            queue.wake(UUID(id))
        bench.release()
        bench.ended(tasks, "SUCCESS")
        before = [bench.provisioner.task(id) for id in tasks.values()]
        for id in [*tasks.values()] * 3:
            queue.wake(UUID(id))
    finally:
        await queue.aclose()
    bench.ended({"later": bench.create("later")}, "SUCCESS")
    assert [bench.provisioner.task(id) for id in tasks.values()] == before
    assert {
        bench.reached(name, f"{when} {step}") for name in tasks for when in ("before", "after") for step in NAMES
    } == {1}


def test_an_agent_killed_before_a_vm_starts_catches_up(bench: Bench) -> None:
    tasks = bench.held(["before start"], profile="tiny", start_vm="true")
    bench.cluster.kill("node")
    bench.release()
    bench.ended(tasks, "SUCCESS")
    bench.cluster.until_state("before-start", "start", True, BACK)


# Another machine


def test_mappings_of_another_machine_are_named_and_removed_by_it(bench: Bench) -> None:
    tasks = bench.held(["before install"])
    bench.worker.die()
    bench.release()
    other = Worker(bench.provisioner, bench.folder, "other")
    other.start()
    try:
        task = bench.provisioner.ended(tasks["before-install"], BACK)
        assert task["state"] == "FAILURE" and len(task["leftovers"]) == 1, task
        assert "vms/before-install_sda" in task["leftovers"][0]
    finally:
        other.stop()
    other.has_not_stumbled()
    assert bench.cluster.get("/vm") == []
    bench.worker.start()
    bench.cluster.until(lambda: not any(bench.worker.mappings.glob("*/*")), BACK)
    bench.cluster.until(lambda: bench.cluster.ask("DELETE", "/storage/ceph/volume/vms/before-install_sda")[0] == 200)
