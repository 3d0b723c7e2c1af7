"""Storage on a real Ceph, through the API of the running daemons."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .cluster import Cluster, Guests
from .faults import children, command

STORAGE = "/storage/ceph"
REALLY = "?yes_i_really_mean_it"
REPLICATION = "copies=1,mincopies=1"
MIB = 1 << 20
OSD_SECONDS = 4 * 60.0
STANDSTILL = ("nobackfill", "norecover")
"""Flags that keep objects from moving between OSDs."""


class Ceph:
    """The API's storage endpoints, and Ceph itself behind its back."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._conf = str(cluster.directory / "ceph" / "ceph.conf")

    def program(self, *argv: str, input: bytes | None = None) -> bytes:
        done = subprocess.run(
            (argv[0], "--conf", self._conf, *argv[1:]), input=input, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def images(self, pool: str) -> list[str]:
        names: list[str] = json.loads(self.program("rbd", "ls", pool, "--format", "json"))
        return sorted(names)

    def incomplete(self, pool: str) -> list[str]:
        """Return the volumes of which only the names exist."""
        argv = ("rbd", "--conf", self._conf, "info", "--pool", pool, "--image")
        return [
            each
            for each in self.images(pool)
            if subprocess.run((*argv, each), check=False, capture_output=True, timeout=60).returncode
        ]

    def watchers(self, pool: str) -> list[Any]:
        """Return the clients of all volumes."""
        answers = [self.program("rbd", "status", f"{pool}/{each}", "--format", "json") for each in self.images(pool)]
        return [watcher for answer in answers for watcher in json.loads(answer)["watchers"]]

    def fill(self, pool: str, volume: str, size: int) -> str:
        """Make a volume without pvcd, of random bytes, whose hash is returned."""
        data = os.urandom(size)
        self.program("rbd", "import", "--no-progress", "-", f"{pool}/{volume}", input=data)
        return hashlib.md5(data).hexdigest()

    def hash(self, pool: str, volume: str) -> str:
        return hashlib.md5(self.program("rbd", "export", "--no-progress", f"{pool}/{volume}", "-")).hexdigest()

    def ask(self, method: str, path: str, **values: Any) -> Any:
        status, body = self.cluster.ask(method, STORAGE + path, **values)
        assert status == 200, body
        return body

    def refused(self, method: str, path: str, **values: Any) -> str:
        return self.cluster.refused(method, STORAGE + path, **values)

    def volumes(self, pool: str) -> list[str]:
        return [volume["name"] for volume in self.ask("GET", f"/volume?pool={pool}")]

    def volume(self, pool: str, name: str) -> Any:
        return self.ask("GET", f"/volume/{pool}/{name}")[0]

    def make(self, pool: str, volume: str, size: str = "64M") -> None:
        self.ask("POST", "/volume", pool=pool, volume=volume, size=size)

    def agrees(self, pool: str) -> bool:
        """Return whether the records and Ceph say the same of pools, and of the volumes and snapshots of one."""
        rows = json.loads(self.program("rbd", "ls", "-l", pool, "--format", "json"))
        volumes = {row["image"]: row["size"] for row in rows if "snapshot" not in row}
        snapshots = {(row["image"], row["snapshot"]) for row in rows if "snapshot" in row}
        hidden = {(volume, name) for volume, name in snapshots if name.startswith("pvcd-clone-")}
        told = {each["name"]: each["stats"]["size_bytes"] for each in self.ask("GET", f"/volume?pool={pool}")}
        told_snapshots = self.ask("GET", f"/volume/snapshot?pool={pool}")
        pools = self.program("ceph", "osd", "pool", "ls").decode().split()
        return (
            (told, self.images(pool)) == (volumes, sorted(volumes))
            and {(each["volume"], each["snapshot"]) for each in told_snapshots} == snapshots - hidden
            and {each["name"] for each in self.ask("GET", "/pool")} == {name for name in pools if name[0] != "."}
        )

    def clear(self, pool: str) -> None:
        """Remove what is in a pool."""
        for each in self.ask("GET", f"/volume/snapshot?pool={pool}"):
            self.ask("DELETE", f"/volume/snapshot/{pool}/{each['volume']}/{each['snapshot']}")
        for volume in self.volumes(pool):
            self.ask("DELETE", f"/volume/{pool}/{volume}")

    def osd(self, number: str) -> Any:
        return self.ask("GET", f"/osd/{number}")[0]


@pytest.fixture(scope="module", autouse=True)
def pool(sandbox_cluster: Cluster) -> Iterator[None]:
    """The pool `tests` goes after all tests that share it."""
    yield
    sandbox_cluster.ask("DELETE", f"{STORAGE}/pool/tests{REALLY}")


@pytest.fixture
def ceph(cluster: Cluster) -> Ceph:
    """Storage with an empty pool `tests`; afterwards only the OSDs of the sandbox may exist."""
    ceph = Ceph(cluster)
    cluster.until(lambda: cluster.ask("GET", f"{STORAGE}/status")[0] == 200, 60)
    if any(pool["name"] == "tests" for pool in ceph.ask("GET", "/pool")):
        cluster.until(lambda: ceph.agrees("tests"), 60)
        ceph.clear("tests")
    else:
        ceph.ask("POST", "/pool", pool="tests", pgs=8, replcfg=REPLICATION)
    return ceph


def test_status_and_df_are_the_output_of_ceph(ceph: Ceph) -> None:
    status, df = ceph.ask("GET", "/status"), ceph.ask("GET", "/df")
    assert (status["type"], df["type"]) == ("status", "utilization")
    assert status["primary_node"] == "pvchv1"
    assert "health:" in status["ceph_data"] and "services:" in status["ceph_data"]
    assert "POOL_NAME" in df["ceph_data"]
    assert status["monitors_in_quorum"] == 1
    assert status["osds_up"] >= 1
    assert df["total_bytes"] > 1 << 30
    assert ceph.ask("GET", "") == ceph.ask("GET", "/status")


def test_an_option_is_set_and_unset(ceph: Ceph) -> None:
    def flags() -> str:
        return str(json.loads(ceph.program("ceph", "osd", "dump", "--format", "json"))["flags"])

    ceph.ask("POST", "/cluster-option", action="set", option="noout")
    assert "noout" in flags()
    assert "noout" in ceph.ask("GET", "/status")["options"]
    ceph.ask("POST", "/cluster-option", action="unset", option="noout")
    assert "noout" not in flags()
    assert ceph.ask("GET", "/status")["options"] == []


def test_a_pool_is_created_shown_and_removed_with_its_contents(ceph: Ceph) -> None:
    assert ceph.refused("POST", "/pool", pool="tests", pgs=8) == "pool-exists"
    (pool,) = ceph.ask("GET", "/pool/tests")
    assert (pool["pgs"], pool["copies"], pool["mincopies"], pool["applications"]) == (8, 1, 1, ["rbd"])
    assert pool["stats"]["free_bytes"] > 1 << 30
    ceph.make("tests", "one")
    assert ceph.refused("DELETE", "/pool/tests") == "not-confirmed"
    ceph.ask("DELETE", f"/pool/tests{REALLY}")
    assert ceph.volumes("tests") == []
    assert "tests" not in ceph.program("ceph", "osd", "pool", "ls").decode().split()
    assert ceph.refused("DELETE", f"/pool/tests{REALLY}") == "pool-not-found"
    ceph.ask("POST", "/pool", pool="tests", pgs=8, replcfg=REPLICATION)


def test_the_life_of_a_volume(ceph: Ceph) -> None:
    ceph.make("tests", "one", "64M")
    stats = ceph.volume("tests", "one")["stats"]
    info = json.loads(ceph.program("rbd", "info", "tests/one", "--format", "json"))
    same = ("name", "id", "objects", "order", "object_size", "block_name_prefix", "format", "features", "flags")
    assert {key: stats[key] for key in same} == {key: info[key] for key in same}
    assert (stats["size"], stats["size_bytes"], info["size"]) == ("64M", 64 * MIB, 64 * MIB)
    assert ceph.refused("POST", "/volume", pool="tests", volume="one", size="1M") == "volume-exists"
    ceph.ask("PUT", "/volume/tests/one", size="128M")
    assert ceph.volume("tests", "one")["stats"]["size_bytes"] == 128 * MIB
    assert ceph.refused("PUT", "/volume/tests/one", size="64M") == "volume-shrinks"
    ceph.ask("PUT", "/volume/tests/one", name="two")
    assert ceph.volumes("tests") == ceph.images("tests") == ["two"]
    assert ceph.refused("PUT", "/volume/tests/one", name="three") == "volume-not-found"
    ceph.ask("DELETE", "/volume/tests/two")
    assert ceph.volumes("tests") == ceph.images("tests") == []
    assert ceph.refused("DELETE", "/volume/tests/two") == "volume-not-found"


def test_a_volume_larger_than_the_pool_is_refused(ceph: Ceph) -> None:
    assert ceph.refused("POST", "/volume", pool="tests", volume="one", size="1P") == "pool-full"
    ceph.make("tests", "one")
    assert ceph.refused("PUT", "/volume/tests/one", size="1P") == "pool-full"
    assert ceph.refused("POST", "/volume", pool="nowhere", volume="one", size="1M") == "pool-not-found"


def test_a_clone_is_complete_and_does_not_need_its_source(ceph: Ceph) -> None:
    written = ceph.fill("tests", "golden", 24 * MIB)
    ceph.ask("POST", "/volume", pool="tests", volume="copy", source_volume="golden")
    assert ceph.hash("tests", "copy") == written
    assert ceph.volume("tests", "copy")["parent"] is None
    assert ceph.ask("GET", "/volume/snapshot?pool=tests") == []
    ceph.ask("DELETE", "/volume/tests/golden")
    assert ceph.hash("tests", "copy") == written
    assert ceph.refused("POST", "/volume", pool="tests", volume="x", source_volume="golden") == "volume-not-found"


def test_the_life_of_a_snapshot(ceph: Ceph) -> None:
    before = ceph.fill("tests", "one", 4 * MIB)
    path = "/volume/snapshot/tests/one"
    ceph.ask("POST", "/volume/snapshot", pool="tests", volume="one", snapshot="before")
    (snapshot,) = ceph.ask("GET", f"{path}/before")
    assert (snapshot["snapshot"], snapshot["volume"], snapshot["pool"]) == ("before", "one", "tests")
    assert (snapshot["size_bytes"], snapshot["protected"]) == (4 * MIB, False)
    assert snapshot["timestamp"]
    ceph.program("rbd", "bench", "--io-type", "write", "--io-total", "1M", "tests/one")
    assert ceph.hash("tests", "one") != before
    ceph.ask("POST", f"{path}/before/rollback")
    assert ceph.hash("tests", "one") == before
    assert ceph.refused("POST", "/volume/snapshot", pool="tests", volume="one", snapshot="before") == "snapshot-exists"
    ceph.ask("PUT", f"{path}/before", name="then")
    assert [each["snapshot"] for each in ceph.ask("GET", "/volume/snapshot?pool=tests")] == ["then"]
    assert ceph.refused("DELETE", "/volume/tests/one") == "volume-has-snapshots"
    ceph.ask("DELETE", f"{path}/then")
    assert ceph.ask("GET", "/volume/snapshot?pool=tests") == []
    assert json.loads(ceph.program("rbd", "snap", "ls", "tests/one", "--format", "json")) == []


def test_changes_by_others_are_noticed(ceph: Ceph) -> None:
    ceph.fill("tests", "theirs", MIB)
    ceph.cluster.until(lambda: ceph.volumes("tests") == ["theirs"])
    ceph.cluster.until(lambda: ceph.volume("tests", "theirs")["stats"]["objects"] == 1)
    ceph.program("rbd", "rm", "--no-progress", "tests/theirs")
    ceph.cluster.until(lambda: ceph.volumes("tests") == [])


def test_one_of_two_concurrent_creations_of_a_volume_is_refused(ceph: Ceph) -> None:
    with ThreadPoolExecutor(8) as pool:
        values = {"pool": "tests", "volume": "one", "size": "64M"}
        replies = list(pool.map(lambda _: ceph.cluster.ask("POST", f"{STORAGE}/volume", **values), range(8)))
    assert sorted(status for status, _ in replies) == [200] + [510] * 7
    assert {body["code"] for status, body in replies if status == 510} == {"volume-exists"}
    assert ceph.agrees("tests")


def test_records_and_ceph_agree_after_a_concurrent_rename_and_removal(ceph: Ceph) -> None:
    for number in range(4):
        name = f"v{number}"
        ceph.make("tests", name)
        with ThreadPoolExecutor(2) as pool:
            works = [
                pool.submit(ceph.cluster.ask, "PUT", f"{STORAGE}/volume/tests/{name}", name=f"new{number}"),
                pool.submit(ceph.cluster.ask, "DELETE", f"{STORAGE}/volume/tests/{name}"),
            ]
            replies = [work.result() for work in works]
        assert 200 in [status for status, _ in replies], replies
        assert ceph.agrees("tests"), (replies, ceph.volumes("tests"), ceph.images("tests"))


def test_names_cannot_inject(ceph: Ceph) -> None:
    ceph.make("tests", "one")
    for name in ("vms/../x", "-p", "a@b", " ", "..", "a,b"):
        assert ceph.refused("POST", "/volume", pool="tests", volume=name, size="1M") == "invalid-value"
        assert ceph.refused("POST", "/volume", pool=name, volume="x", size="1M") == "invalid-value"
        assert ceph.refused("PUT", "/volume/tests/one", name=name) == "invalid-value"
        assert ceph.refused("POST", "/pool", pool=name, pgs=8) == "invalid-value"
        assert ceph.refused("POST", "/cluster-option", action="set", option=name) == "invalid-value"
    assert ceph.images("tests") == ["one"]


# What is interrupted


NOW = "/volume/snapshot/tests/one/now"
INTERRUPTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "osd pool create": ("POST", "/pool", {"pool": "new", "pgs": 8, "replcfg": REPLICATION}),
    "create --size": ("POST", "/volume", {"pool": "tests", "volume": "new", "size": "64M"}),
    "clone": ("POST", "/volume", {"pool": "tests", "volume": "new", "source_volume": "one"}),
    "flatten": ("POST", "/volume", {"pool": "tests", "volume": "new", "source_volume": "one"}),
    "resize": ("PUT", "/volume/tests/one", {"size": "256M"}),
    "rename": ("PUT", "/volume/tests/one", {"name": "new"}),
    "rm": ("DELETE", "/volume/tests/two", {}),
    "snap create": ("POST", "/volume/snapshot", {"pool": "tests", "volume": "one", "snapshot": "new"}),
    "snap rename": ("PUT", NOW, {"name": "new"}),
    "snap rm": ("DELETE", NOW, {}),
}
"""The requests, by the words of the program that is run for each."""


@pytest.mark.parametrize("words", INTERRUPTED)
def test_records_and_ceph_agree_after_an_agent_is_killed_during_a_change(ceph: Ceph, words: str) -> None:
    for volume in ("one", "two"):
        ceph.make("tests", volume)
        ceph.program("rbd", "bench", "--io-type", "write", "--io-size", "1M", "--io-total", "24M", f"tests/{volume}")
    ceph.ask("POST", "/volume/snapshot", pool="tests", volume="one", snapshot="now")
    method, path, values = INTERRUPTED[words]
    status, body = killed_in_the_middle(ceph.cluster, words, method, path, values)
    if status != 200:
        assert body["code"] in ("node-not-running", "agent-restarted"), body
    for volume in ceph.incomplete("tests"):
        ceph.ask("DELETE", f"/volume/tests/{volume}")
    ceph.cluster.until(lambda: ceph.agrees("tests"), 60)
    ceph.cluster.until(lambda: not ceph.watchers("tests"), 60)  # for a while, one of them is the killed program
    unfinished = [pool["name"] for pool in ceph.ask("GET", "/pool") if not pool["applications"]]
    for pool in unfinished:
        ceph.ask("DELETE", f"/pool/{pool}{REALLY}")
    status, body = ceph.cluster.ask(method, STORAGE + path, **values)
    assert status == 200 or (body["code"].endswith(("-exists", "-not-found")) and not unfinished), body
    assert ceph.agrees("tests")
    assert {volume["parent"] for volume in ceph.ask("GET", "/volume?pool=tests")} == {None}
    if "source_volume" in values:
        assert ceph.hash("tests", "new") == ceph.hash("tests", "one")
    if words == "osd pool create":
        assert ceph.ask("GET", "/pool/new")[0]["applications"] == ["rbd"]
        ceph.ask("DELETE", f"/pool/new{REALLY}")


def test_a_removal_of_a_killed_agent_removes_nothing_later(ceph: Ceph) -> None:
    ceph.make("tests", "one")
    agent = ceph.cluster.server("node")["pid"]
    asking = in_background(ceph.cluster, "DELETE", f"{STORAGE}/volume/tests/one")
    while not (removing := [child for child in children(agent) if {"rm", "tests/one"} <= set(command(child).split())]):
        assert not asking.done()
    try:
        while not command(removing[0]).startswith("rbd "):  # not yet what it will be
            pass
        os.kill(removing[0], signal.SIGSTOP)
        os.kill(agent, signal.SIGKILL)
        ceph.cluster.until(lambda: commands_are_answered(ceph.cluster), 60)
        ceph.ask("PUT", "/volume/tests/one", size="256M")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(removing[0], signal.SIGCONT)
    ceph.cluster.until(lambda: not command(removing[0]), 60)
    assert ceph.images("tests") == ["one"]
    assert ceph.volume("tests", "one")["stats"]["size_bytes"] == 256 * MIB


def killed_in_the_middle(
    cluster: Cluster, words: str, method: str, path: str, values: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    """The answer to a request whose agent is killed as soon as it runs a program with these words in a row."""
    agent = cluster.server("node")["pid"]
    asking = in_background(cluster, method, STORAGE + path, **values)
    while not (asking.done() or runs(agent, words)):
        time.sleep(0.002)
    os.kill(agent, signal.SIGKILL)
    answer = asking.result(OSD_SECONDS)
    cluster.until(lambda: commands_are_answered(cluster), 60)
    return answer


def runs(process: int, words: str) -> bool:
    """Return whether a process has a child with these words in a row among its arguments."""
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ")
            if f" {words} ".encode() in b" " + line:
                return True
    return False


def commands_are_answered(cluster: Cluster) -> bool:
    """Return whether the agent that was killed is seen to be gone, and the new one acts."""
    return cluster.ask("POST", f"{STORAGE}/cluster-option", action="unset", option="noout")[0] == 200


def test_a_hanging_ceph_is_reported_and_does_not_affect_other_requests(ceph: Ceph, guests: Guests) -> None:
    ceph.make("tests", "one")
    servers = [each for each in ceph.cluster.status()["servers"] if each["name"].startswith("ceph-")]
    for server in servers:
        os.kill(server["pid"], signal.SIGSTOP)
    try:
        asking = in_background(ceph.cluster, "POST", f"{STORAGE}/volume", pool="tests", volume="two", size="1M")
        ceph.cluster.post("/vm", xml=guests.sector("web1"))
        ceph.cluster.post("/vm/web1/state", state="start")
        ceph.cluster.until_state("web1", "start", True)
        while not asking.done():
            assert ceph.cluster.node("pvchv1")["daemon_state"] == "run"
            assert ceph.volumes("tests") == ["one"]
            time.sleep(0.05)
        status, body = asking.result()
        assert (status, body["code"]) == (510, "ceph-unavailable"), body
        ceph.cluster.until(lambda: ceph.ask("GET", "/status")["failed_reason"], 60)
    finally:
        for server in servers:
            os.kill(server["pid"], signal.SIGCONT)
    ceph.cluster.until(lambda: ceph.ask("GET", "/status")["failed_reason"] is None, 60)
    ceph.cluster.until(lambda: ceph.agrees("tests"), 30)
    ceph.make("tests", "three")


def in_background(cluster: Cluster, method: str, path: str, **values: Any) -> Future[tuple[int, Any]]:
    """The answer to a request that may take long."""
    answer: Future[tuple[int, Any]] = Future()

    def ask() -> None:
        try:
            answer.set_result(cluster.ask(method, path, **values))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return answer


# OSDs


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    """A block device of 2 GiB that nothing uses."""
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(2 << 30)
    done = subprocess.run(
        ("losetup", "--find", "--show", image), capture_output=True, text=True, check=True, timeout=10
    )
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(("losetup", "--detach", device), check=False, timeout=10)


def test_a_device_in_use_or_missing_is_refused(ceph: Ceph, loop: str) -> None:
    subprocess.run(("mkfs.ext4", "-q", loop), check=True, timeout=30)
    root = subprocess.run(
        ("findmnt", "-n", "-o", "SOURCE", "/"), capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
    for device in ("/dev/null", "/dev/nothing", "/dev/shm", loop, root if root.startswith("/dev/") else "/dev/zero"):
        assert ceph.refused("POST", "/osd", node="pvchv1", device=device, weight=1) == "device-refused", device
    for device in ("/etc/passwd", "/dev/../etc/passwd", "-p", "/dev/sd b"):
        assert ceph.refused("POST", "/osd", node="pvchv1", device=device, weight=1) == "invalid-value", device
    assert ceph.refused("POST", "/osd", node="nowhere", device=loop, weight=1) == "node-not-found"


def test_an_osd_is_added_drained_and_removed_and_the_data_is_intact(ceph: Ceph, loop: str) -> None:
    before = {osd["id"] for osd in ceph.ask("GET", "/osd")}
    values = {"node": "pvchv1", "device": loop, "weight": 1.0}
    kill_in_the_middle_of_a_making(ceph, values, before)
    status, body = in_background(ceph.cluster, "POST", f"{STORAGE}/osd", **values).result(OSD_SECONDS)
    assert status == 200, body
    (new,) = {osd["id"] for osd in ceph.ask("GET", "/osd")} - before
    stats = ceph.osd(new)["stats"]
    assert (stats["node"], stats["up"], stats["in"], stats["weight"]) == ("pvchv1", 1, 1, 1.0)
    assert ceph.refused("POST", "/osd", node="pvchv1", device=loop, weight=1) == "device-refused"
    written = ceph.fill("tests", "one", 96 * MIB)
    ceph.cluster.until(lambda: ceph.osd(new)["stats"]["pgs"] > 0, 60)
    ceph.ask("POST", f"/osd/{new}/state", state="out")
    assert ceph.ask("GET", f"/osd/{new}/state") == {"id": new, "in": 0, "up": 1}
    ceph.ask("POST", f"/osd/{new}/state", state="in")
    assert ceph.refused("DELETE", f"/osd/{new}") == "not-confirmed"

    kill_in_the_middle_of_a_removal(ceph, new)
    assert ceph.hash("tests", "one") == written

    removal = {"yes_i_really_mean_it": ""}
    status, body = killed_in_the_middle(ceph.cluster, "ceph-bluestore-tool", "DELETE", f"/osd/{new}", removal)
    assert (status, body["code"]) in ((510, "node-not-running"), (510, "agent-restarted")), body
    assert ceph.hash("tests", "one") == written
    status, body = in_background(ceph.cluster, "DELETE", f"{STORAGE}/osd/{new}", **removal).result(OSD_SECONDS)
    assert (status, body) == (200, {"message": f"OSD {new} removed."})
    assert {osd["id"] for osd in ceph.ask("GET", "/osd")} == before
    assert ceph.hash("tests", "one") == written
    tree = json.loads(ceph.program("ceph", "osd", "tree", "--format", "json"))
    assert int(new) not in [node["id"] for node in tree["nodes"]]
    assert not (ceph.cluster.directory / "ceph" / "osd" / new).exists()
    assert ceph.refused("DELETE", f"/osd/{new}{REALLY}") == "osd-not-found"
    assert ceph.refused("DELETE", f"/osd/0{REALLY}") == "osd-not-local", "the sandbox made that one"
    assert ceph.osd("0")["stats"]["in"] == 1


def is_clean(ceph: Ceph) -> bool:
    """Return whether everything is where it should be."""
    status = json.loads(ceph.program("ceph", "status", "--format", "json"))
    return [each["state_name"] for each in status["pgmap"]["pgs_by_state"]] == ["active+clean"]


def kill_in_the_middle_of_a_making(ceph: Ceph, values: dict[str, Any], before: set[str]) -> None:
    """Check that nothing of the OSD is left in Ceph or on the device, where it can be created again."""
    status, body = killed_in_the_middle(ceph.cluster, "--mkfs", "POST", "/osd", values)
    assert (status, body["code"]) in ((510, "node-not-running"), (510, "agent-restarted")), body
    folder = ceph.cluster.directory / "ceph" / "osd"
    ceph.cluster.until(lambda: not list(folder.glob("preparing-*")), 60)
    assert {str(osd) for osd in json.loads(ceph.program("ceph", "osd", "ls", "--format", "json"))} == before
    ceph.cluster.until(lambda: {osd["id"] for osd in ceph.ask("GET", "/osd")} == before)


def kill_in_the_middle_of_a_removal(ceph: Ceph, osd: str) -> None:
    """Check that the OSD stays while its data cannot move, even if the agent dies."""
    ceph.cluster.until(lambda: ceph.osd(osd)["stats"]["pgs"] > 0 and is_clean(ceph), 60)
    for option in STANDSTILL:
        ceph.ask("POST", "/cluster-option", action="set", option=option)
    try:
        removing = in_background(ceph.cluster, "DELETE", f"{STORAGE}/osd/{osd}", yes_i_really_mean_it="")
        ceph.cluster.until(lambda: "in the cluster not ready" in (ceph.osd(osd)["progress"] or ""), 60)
        assert ceph.refused("DELETE", f"/osd/{osd}{REALLY}") == "osd-busy"
        assert not removing.done(), removing.result()
        stats = ceph.osd(osd)["stats"]
        assert (stats["in"], stats["up"]) == (0, 1)
        ceph.cluster.kill("node")
        status, body = removing.result(60)
        assert (status, body["code"]) in ((510, "node-not-running"), (510, "agent-restarted"))
    finally:
        ceph.cluster.until(lambda: commands_are_answered(ceph.cluster), 60)
        for option in STANDSTILL:
            ceph.ask("POST", "/cluster-option", action="unset", option=option)
    ceph.cluster.until(lambda: ceph.osd(osd)["progress"] is None)
    stats = ceph.osd(osd)["stats"]
    assert (stats["in"], stats["up"]) == (0, 1)
