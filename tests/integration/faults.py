"""The bench for faults: a worker that waits where a test holds it, and a snapshot of everything that exists."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from pvcd_plugins.sandbox.ceph import OSD
from pvcd_plugins.sandbox.state import MARK
from tests.integration.cluster import Cluster
from tests.integration.provisioner import PROVISIONER, Provisioner
from tests.servers import Daemon

PLUGIN = Path(__file__).parent / "held_plugin"
PROC = Path("/proc")
THREADS = 16
SCRIPT_SECONDS = 12.0
BACK = 60.0
"""Seconds within which a task is over once there is a worker again."""
WRITER = """\
import pathlib

def install(**kwargs):
    pathlib.Path(kwargs["temporary_directory"], "written").write_text("by install()" * 1000)
"""
CHANGING = ("/zookeeper", "/tasks/", "/presence/", "/node-commands/", "/ceph-")
"""Records that come and go by themselves, and those of the tasks, which stay."""


@dataclass(frozen=True)
class Everything:
    """Everything that building a VM may leave behind."""

    volumes: list[str]
    left: list[str]
    """Loop devices, mounts and VMs."""
    mounts: list[str]
    """The mounts of all mount namespaces."""
    processes: Counter[str]
    """But for the sandbox's servers and what they have started, which come and go."""
    files: list[str]
    records: list[str]

    def differences(self, other: Everything) -> list[str]:
        """In words."""
        pairs = [(field.name, getattr(self, field.name), getattr(other, field.name)) for field in fields(self)]
        return [
            f"{name}: gone {Counter(one) - Counter(two)}, new {Counter(two) - Counter(one)}"
            for name, one, two in pairs
            if one != two
        ]


class Worker(Daemon):
    """A worker of the sandbox's cluster that waits where a test holds it, with its own mapping directory."""

    def __init__(self, provisioner: Provisioner, folder: Path, machine: str) -> None:
        self._cluster = provisioner.cluster
        directory = self._cluster.directory
        self.mappings, self.temporary = directory / f"mapping-{machine}", folder / f"tmp-{machine}"
        self.temporary.mkdir()
        values = self._cluster.settings
        values["ceph"]["mapping_directory"] = str(self.mappings)
        values["plugins"] = {"directories": [str(PLUGIN)]}
        values["held"] = {"directory": str(folder)}
        values["worker"] = {"threads": THREADS}
        values["provisioner"] |= {"script_seconds": SCRIPT_SECONDS}
        super().__init__(folder / machine, values, "pvcd", "worker")
        self._environment = (f"{MARK}={directory}", f"TMPDIR={self.temporary}")

    def start(self) -> None:
        """Start it, or start it again, and return when it takes tasks."""
        ready = self.log.count("takes tasks")
        self.launch("setpriv", "--pdeathsig", "KILL", "--", "env", *self._environment)
        self._cluster.until(lambda: self.log.count("takes tasks") > ready)

    def die(self) -> None:
        """Kill the worker, but none of its children."""
        self.stop(signal.SIGKILL)

    def until_dead(self) -> None:
        """Return when it was killed from within."""
        assert self.process
        assert self.process.wait(BACK) == -signal.SIGKILL
        self.process = None


class Bench:
    """A worker that tests can hold, in the place of the sandbox's own, and what there was before it did anything."""

    def __init__(self, provisioner: Provisioner, folder: Path) -> None:
        self.provisioner, self.cluster, self.folder = provisioner, provisioner.cluster, folder
        self.worker = Worker(provisioner, folder, "one")
        self._supervisor: int = self.cluster.status()["pid"]
        self.steps: dict[str, float] = {}
        """Each with the seconds that it takes when nothing disturbs it."""
        self.places: list[str] = []
        """Return all places that a task reaches, such as `before map`."""
        self.before: Everything

    def learn(self) -> None:
        """Build a VM without a fault, remove it, and remember what there is."""
        task = self.provisioner.ended(self.create("whole"))
        assert task["state"] == "SUCCESS", task
        self.steps = {step["name"]: step["ended"] - step["started"] for step in task["steps"]}
        self.places = sorted(file.stem.removeprefix("whole ") for file in self.folder.glob("whole *.at"))
        self.provisioner.clear()
        self.before = self.everything()

    def create(self, name: str, profile: str = "writer", **values: Any) -> str:
        return self.provisioner.create(name, profile, **({"start_vm": "false"} | values))

    def held(self, places: Sequence[str], **values: Any) -> dict[str, str]:
        """Tasks by the names of their VMs, each of which waits at one of these places."""
        names = {place.replace(" ", "-"): place for place in places}
        for name, place in names.items():
            (self.folder / f"{name} {place}.hold").touch()
        tasks = {name: self.create(name, **values) for name in names}
        for name, place in names.items():
            self.until_at(name, place)
        return tasks

    def until_at(self, name: str, place: str) -> None:
        self.cluster.until(lambda: self.reached(name, place), BACK)

    def reached(self, name: str, place: str) -> int:
        """Return how often the task of a VM reached a place."""
        file = self.folder / f"{name} {place}.at"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def release(self) -> None:
        """Hold nothing any more."""
        for file in self.folder.glob("*.hold"):
            file.unlink()

    def forget(self) -> None:
        """Hold nothing any more, and forget who was where."""
        for file in self.folder.glob("* *.*"):
            file.unlink()

    def kill_amid(self, name: str, step: str) -> None:
        """Let the worker be killed when a step of a VM's task is half done, going by the time that it takes."""
        (self.folder / f"{name} {step}.kill").write_text(str(self.steps[step] / 2))

    def log(self, task: str) -> str:
        """Return the log of a task."""
        return "\n".join(line["text"] for line in self.cluster.get(f"{PROVISIONER}/status/{task}/log"))

    def ended(self, tasks: dict[str, str], *states: str) -> None:
        """Assert that tasks come to an end in time, in one of these states, and that nothing is left of failed ones."""
        for name, id in tasks.items():
            task = self.provisioner.ended(id, BACK)
            assert task["state"] in states, task
            stays = task["state"] == "SUCCESS" or any("was completed already" in left for left in task["leftovers"])
            assert stays or not task["leftovers"], task
            assert stays == any(vm["name"] == name for vm in self.cluster.get("/vm")), task

    def nothing_left(self) -> None:
        """Assert that all is as before, once the VMs that were completed are removed."""
        for vm in self.cluster.get("/vm"):
            self.cluster.until(lambda vm=vm: self._remove(vm["name"]), BACK)  # type: ignore[misc]
        try:
            self.cluster.until(lambda: self.everything() == self.before, BACK)
        except AssertionError:
            raise AssertionError(self.before.differences(self.everything())) from None

    def _remove(self, name: str) -> bool:
        return self.cluster.ask("DELETE", f"/vm/{name}", delete_disks="true")[0] == 200

    def everything(self) -> Everything:
        """Return a snapshot of everything that exists."""
        mapped = str(self.cluster.directory / "mapping")
        folders = [*self.cluster.directory.glob("mapping*"), *self.folder.glob("tmp-*")]
        return Everything(
            volumes=self.provisioner.volumes(),
            left=self.provisioner.left(),
            mounts=sorted({line for pid in processes() for line in mounts(pid) if mapped in line}),
            processes=Counter(filter(None, map(command, set(processes()) - below(self._supervisor)))),
            files=sorted(str(file) for folder in folders for file in folder.rglob("*") if file.is_file()),
            records=records(self.cluster),
        )


def processes() -> list[int]:
    """All in this network namespace but the one that runs the tests."""
    here, found = os.stat("/proc/self/ns/net"), []
    for pid in map(int, filter(str.isdecimal, os.listdir(PROC))):
        with contextlib.suppress(OSError):  # it has just ended
            if pid != os.getpid() and os.path.samestat(os.stat(PROC / str(pid) / "ns/net"), here):
                found.append(pid)
    return found


def command(pid: int) -> str:
    """The command line of a process; nothing for one that has ended."""
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def children(pid: int) -> list[int]:
    """Return the children of all threads of a process."""
    with contextlib.suppress(OSError):
        return [
            int(each) for file in (PROC / str(pid) / "task").glob("*/children") for each in file.read_text().split()
        ]
    return []


def below(pid: int) -> set[int]:
    """A process and all that it has started, directly or not."""
    return {pid}.union(*map(below, children(pid)))


@contextlib.contextmanager
def stopped_program(
    cluster: Cluster, program: str, *words: str, begin: Callable[[], object], ceph_goes_on: bool = True
) -> Iterator[int]:
    """Yield a program of Ceph that has begun but not acted, since it is stopped; let it go on in the end.

    `words` are in its command line, and `begin` leads to its start. Meanwhile Ceph's OSD is stopped, too, or goes on.
    """
    osd, pids = cluster.kill(OSD, signal.SIGSTOP), list[int]()

    def found() -> bool:
        lines = {pid: command(pid).split() for pid in processes()}
        pids[:] = [pid for pid, line in lines.items() if line[:1] == [program] and set(words) <= set(line)]
        return bool(pids)

    try:
        begin()
        cluster.until(found, BACK)
        os.kill(pids[0], signal.SIGSTOP)
        if ceph_goes_on:
            os.kill(osd, signal.SIGCONT)
        yield pids[0]
    finally:
        os.kill(osd, signal.SIGCONT)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[0], signal.SIGCONT)


def mounts(pid: int) -> list[str]:
    """Paths and sources of what a process has mounted."""
    with contextlib.suppress(OSError):
        lines = (PROC / str(pid) / "mountinfo").read_text().splitlines()
        return [" ".join((line.split()[4], line.split()[-2])) for line in lines]
    return []


def records(cluster: Cluster) -> list[str]:
    """The paths of everything in ZooKeeper that does not come and go by itself."""
    with cluster.zookeeper() as client:
        return sorted(found_below(client, "/"))


def found_below(client: KazooClient, path: str) -> Iterator[str]:
    with contextlib.suppress(NoNodeError):  # it has just gone
        for name in client.get_children(path):
            child = f"{path.rstrip('/')}/{name}"
            if not child.startswith(CHANGING):
                if client.get(child)[0]:  # and not only a place of others
                    yield child
                yield from found_below(client, child)
