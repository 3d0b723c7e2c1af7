"""The whole main job: VMs are built from a profile on a real Ceph and a real network, boot, and go with their disks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from pvcd.sandbox import ceph, guest
from tests.integration.cluster import Cluster, Guests

EXAMPLES = Path(__file__).parents[2] / "plugins/provisioner/examples"
PROVISIONER = "/provisioner"
SECONDS = 90.0
NETWORK = {
    "vni": 220,
    "description": "built",
    "nettype": "managed",
    "ip4_network": "10.22.0.0/24",
    "ip4_gateway": "10.22.0.1",
    "dhcp4": "true",
    "dhcp4_start": "10.22.0.100",
    "dhcp4_end": "10.22.0.199",
}
SLEEPER = "import time\ndef install(**kwargs):\n    print('asleep', flush=True)\n    time.sleep(1000)\n"


class Provisioner:
    """Builds VMs, and sees what is left of it outside of the records."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.conf = ceph.conf(cluster.directory / "ceph")

    def create(self, name: str, profile: str = "tiny", **more: Any) -> str:
        reply = self.cluster.send("POST", f"{PROVISIONER}/create", form={"name": name, "profile": profile, **more})
        assert reply.status == 200, reply.body
        assert reply.headers["Location"].endswith(reply.json["task_id"])
        return str(reply.json["task_id"])

    def task(self, id: str) -> Any:
        return self.cluster.get(f"{PROVISIONER}/status/{id}")

    def ended(self, id: str) -> Any:
        """The task when it is over."""
        self.cluster.until(lambda: self.task(id)["state"] in ("SUCCESS", "FAILURE", "CANCELLED"), SECONDS)
        return self.task(id)

    def doing(self, id: str) -> str | None:
        running = [step["name"] for step in self.task(id)["steps"] if step["state"] == "running"]
        return running[0] if running else None

    def script(self, name: str, text: str) -> None:
        self.cluster.post(f"{PROVISIONER}/script", name=name, data=text)
        names = {"system_template": "small", "network_template": "built", "storage_template": "root"}
        self.cluster.post(f"{PROVISIONER}/profile", name=name, userdata_template="empty", script=name, **names)

    def left(self) -> list[str]:
        """Volumes, devices, mounts and processes of what was built, and VMs."""
        argv = ["rbd", "--conf", str(self.conf), "ls", ceph.POOL]
        volumes = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.split()
        loops = subprocess.run(["losetup", "-J"], capture_output=True, check=True, timeout=60).stdout
        used = json.loads(loops or '{"loopdevices": []}')["loopdevices"]
        at = str(self.cluster.directory)
        devices = [loop["back-file"] for loop in used if loop["back-file"].startswith(at)]
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{at}/mapping" in line]
        return [*volumes, *devices, *mounts, *(vm["name"] for vm in self.cluster.get("/vm"))]


@pytest.fixture(scope="module")
def provisioner(sandbox_cluster: Cluster, guests: Guests) -> Iterator[Provisioner]:
    """Templates, and a profile that builds the tiny guest."""
    post = sandbox_cluster.post
    files = Path(tempfile.mkdtemp(dir="/var/tmp"))  # a script has a /tmp of its own
    for file, name in zip(guests.tiny, ("vmlinuz", "initrd"), strict=True):
        shutil.copyfile(file, files / name)
    post("/network", **NETWORK)
    post(f"{PROVISIONER}/template/system", name="small", vcpus=1, vram=128, serial="true")
    post(f"{PROVISIONER}/template/network", name="built")
    post(f"{PROVISIONER}/template/network/built/net", vni=220)
    post(f"{PROVISIONER}/template/storage", name="root")
    disk = {"disk_id": "sda", "pool": ceph.POOL, "disk_size": 1, "filesystem": "ext4", "mountpoint": "/"}
    post(f"{PROVISIONER}/template/storage/root/disk", filesystem_arg="-O=^64bit,^metadata_csum", **disk)
    post(f"{PROVISIONER}/template/userdata", name="hello", data="#cloud-config\nhostname: {{ vm_name }}\n")
    post(f"{PROVISIONER}/script", name="tiny", data=(EXAMPLES / "tiny.py").read_text())
    names = {"system_template": "small", "network_template": "built", "disk_template": "root", "script": "tiny"}
    arguments = [f"kernel={files}/vmlinuz", f"initrd={files}/initrd"]
    post(f"{PROVISIONER}/profile", name="tiny", userdata_template="hello", arg=arguments, **names)
    made = Provisioner(sandbox_cluster)
    made.script("sleeper", SLEEPER)
    yield made
    for kind in ("profile", "script", "template/system", "template/network", "template/storage", "template/userdata"):
        for each in sandbox_cluster.get(f"{PROVISIONER}/{kind}"):
            if each["name"] != "empty":
                sandbox_cluster.delete(f"{PROVISIONER}/{kind}/{each['name']}")
    sandbox_cluster.delete("/network/built")
    shutil.rmtree(files)


@pytest.fixture(autouse=True)
def clean(cluster: Cluster, provisioner: Provisioner) -> Iterator[None]:
    """Nothing is left of any VM after a test."""
    yield
    for vm in cluster.get("/vm"):
        cluster.ask("DELETE", f"/vm/{vm['name']}", delete_disks="true")
    cluster.until(lambda: not provisioner.left(), 60)


def test_a_vm_is_built_boots_learns_who_it_is_and_goes_with_its_disks(
    cluster: Cluster, provisioner: Provisioner
) -> None:
    task = provisioner.ended(provisioner.create("web1"))
    assert (task["state"], task["current"], task["left"]) == ("SUCCESS", task["total"], []), task
    assert {step["state"] for step in task["steps"]} <= {"ok", "changed", "skipped"}
    vm = cluster.vm("web1")
    assert (vm["profile"], vm["memory"], vm["disks"][0]["name"]) == ("tiny", 128, "vms/web1_sda")
    cluster.until(lambda: guest.GREETING in cluster.get("/vm/web1/console", lines=100)["data"], SECONDS)
    cluster.until(lambda: cluster.vm("web1")["networks"][0]["ip4_address"], SECONDS)
    instance = f"{guest.INSTANCE}{vm['uuid']}"
    cluster.until(lambda: instance in cluster.get("/vm/web1/console", lines=100)["data"], SECONDS)
    lines = [line["text"] for line in cluster.get(f"{PROVISIONER}/status/{task['task_id']}/log")]
    assert "installing the boot loader" in lines
    cluster.delete("/vm/web1", delete_disks="true")
    assert provisioner.left() == []


def test_a_dry_run_says_what_would_be_done_and_does_nothing(cluster: Cluster, provisioner: Provisioner) -> None:
    plan = cluster.post(f"{PROVISIONER}/create", name="web1", profile="tiny", check="true")
    assert plan["userdata"] == "#cloud-config\nhostname: web1\n" and "<name>web1</name>" in plan["xml"]
    sources = {each["name"]: each["source"] for each in plan["variables"]}
    assert sources["kernel"] == "profile tiny" and sources["vram"] == "system template small"
    assert [step["name"] for step in plan["steps"]][:2] == ["collect", "verify"]
    assert provisioner.left() == []


def test_what_can_be_known_to_be_wrong_is_refused_at_once(cluster: Cluster, provisioner: Provisioner) -> None:
    def code(**values: Any) -> str:
        return cluster.refused("POST", f"{PROVISIONER}/create", **values)

    before = len(cluster.get(f"{PROVISIONER}/status"))
    assert code(name="web1", profile="none") == "profile-not-found"
    assert code(name="web1", profile="tiny", start_vm="true", define_vm="false") == "invalid-value"
    assert code(name="web1", profile="tiny", arg="vm_name=x") == "invalid-value"
    provisioner.ended(provisioner.create("taken", start_vm="false"))
    assert code(name="taken", profile="tiny") == "vm-exists"
    assert cluster.refused("GET", f"{PROVISIONER}/status/00000000-0000-4000-8000-000000000000") == "task-not-found"
    assert len(cluster.get(f"{PROVISIONER}/status")) == before + 1


def test_only_the_disks_are_made_when_no_vm_is_wanted(cluster: Cluster, provisioner: Provisioner) -> None:
    task = provisioner.ended(provisioner.create("image", define_vm="false"))
    assert task["state"] == "SUCCESS", task
    assert provisioner.left() == ["image_sda"]
    cluster.until(lambda: cluster.ask("DELETE", "/storage/ceph/volume/vms/image_sda")[0] == 200, 60)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("raises", "def install(**kwargs):\n    raise ValueError('no luck')\n", "no luck"),
        ("exits", "import os\ndef install(**kwargs):\n    os._exit(3)\n", "3"),
    ],
)
def test_a_script_that_fails_leaves_nothing(provisioner: Provisioner, name: str, text: str, said: str) -> None:
    provisioner.script(name, text)
    task = provisioner.ended(provisioner.create("broken", name))
    assert task["state"] == "FAILURE" and said in task["status"] and task["left"] == []
    assert provisioner.left() == []


def test_a_task_that_is_cancelled_is_undone(cluster: Cluster, provisioner: Provisioner) -> None:
    id = provisioner.create("slow", "sleeper")
    cluster.until(lambda: provisioner.doing(id) == "install", SECONDS)
    assert cluster.refused("POST", f"{PROVISIONER}/create", name="slow", profile="tiny") in (
        "vm-exists",
        "task-in-progress",
    )
    cluster.delete(f"{PROVISIONER}/status/{id}")
    task = provisioner.ended(id)
    assert task["state"] == "CANCELLED" and task["left"] == []
    assert provisioner.left() == []


def test_a_killed_worker_leaves_nothing_once_there_is_one_again(cluster: Cluster, provisioner: Provisioner) -> None:
    id = provisioner.create("orphan", "sleeper")
    cluster.until(lambda: provisioner.doing(id) == "install", SECONDS)
    cluster.kill("worker")
    task = provisioner.ended(id)
    assert task["state"] == "FAILURE" and task["left"] == [], task
    assert provisioner.left() == []
    assert provisioner.ended(provisioner.create("next", start_vm="false"))["state"] == "SUCCESS"


def test_a_mapping_that_is_killed_fails_the_task_and_leaves_nothing(cluster: Cluster, provisioner: Provisioner) -> None:
    id = provisioner.create("unmapped", "sleeper")
    cluster.until(lambda: provisioner.doing(id) == "install", SECONDS)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if words.startswith("qemu-storage-daemon") and "unmapped_sda" in words:
            os.kill(int(path.parent.name), signal.SIGKILL)
    cluster.delete(f"{PROVISIONER}/status/{id}")
    task = provisioner.ended(id)
    assert task["state"] in ("CANCELLED", "FAILURE") and task["left"] == [], task
    assert provisioner.left() == []


def test_ten_at_once_on_one_profile_succeed(cluster: Cluster, provisioner: Provisioner) -> None:
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda n=number: ids.append(provisioner.create(f"many{n}", start_vm="false")))  # type: ignore[misc]
        for number in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ids) == 10
    assert [provisioner.ended(id)["state"] for id in ids] == ["SUCCESS"] * 10
    assert len(cluster.get("/vm")) == 10


def test_the_log_is_followed_live(cluster: Cluster, provisioner: Provisioner) -> None:
    id = provisioner.create("live", "sleeper")
    with urlopen(f"{cluster.api}{PROVISIONER}/status/{id}/log/follow", timeout=SECONDS) as reply:
        assert reply.headers["Content-Type"] == "text/event-stream"
        end = time.monotonic() + SECONDS
        while b"asleep" not in reply.readline():
            assert time.monotonic() < end
        cluster.delete(f"{PROVISIONER}/status/{id}")
        rest = reply.read()
    assert b"event: end" in rest
    assert provisioner.ended(id)["state"] == "CANCELLED"
