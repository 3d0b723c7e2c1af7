"""VMs are built from a profile on a real Ceph and a real network, boot, and are removed with their disks."""

from __future__ import annotations

import threading
import time
from typing import Any
from urllib.request import urlopen

import pytest

from pvcd_plugins.sandbox import guest
from tests.integration.cluster import Cluster
from tests.integration.provisioner import PROVISIONER, SECONDS, Provisioner

pytestmark = pytest.mark.usefixtures("no_vm_left")


def test_a_vm_is_built_boots_reads_its_metadata_and_is_removed_with_its_disks(
    cluster: Cluster, provisioner: Provisioner
) -> None:
    task = provisioner.ended(provisioner.create("web1"))
    assert (task["state"], task["current"], task["leftovers"]) == ("SUCCESS", task["total"], []), task
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


def test_a_dry_run_describes_the_steps_and_does_nothing(cluster: Cluster, provisioner: Provisioner) -> None:
    plan = cluster.post(f"{PROVISIONER}/create", name="web1", profile="tiny", check="true")
    assert plan["userdata"] == "#cloud-config\nhostname: web1\n" and "<name>web1</name>" in plan["xml"]
    sources = {each["name"]: each["source"] for each in plan["variables"]}
    assert sources["kernel"] == "profile 'tiny'" and sources["vram"] == "system template 'small'"
    assert [step["name"] for step in plan["steps"]][:2] == ["collect", "verify"]
    assert provisioner.left() == []


def test_detectable_mistakes_are_refused_at_once(cluster: Cluster, provisioner: Provisioner) -> None:
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


def test_only_the_disks_are_created_without_define_vm(cluster: Cluster, provisioner: Provisioner) -> None:
    task = provisioner.ended(provisioner.create("image", define_vm="false"))
    assert task["state"] == "SUCCESS", task
    assert provisioner.left() == ["image_sda"]
    cluster.until(lambda: cluster.ask("DELETE", "/storage/ceph/volume/vms/image_sda")[0] == 200, 60)


def test_a_canceled_task_is_undone(cluster: Cluster, provisioner: Provisioner) -> None:
    id = provisioner.create("slow", "sleeper")
    cluster.until(lambda: provisioner.doing(id) == "install", SECONDS)
    assert cluster.refused("POST", f"{PROVISIONER}/create", name="slow", profile="tiny") in (
        "vm-exists",
        "task-in-progress",
    )
    cluster.delete(f"{PROVISIONER}/status/{id}")
    task = provisioner.ended(id)
    assert task["state"] == "CANCELLED" and task["leftovers"] == []
    assert provisioner.left() == []


def test_a_new_worker_removes_everything_of_a_killed_one(cluster: Cluster, provisioner: Provisioner) -> None:
    id = provisioner.create("orphan", "sleeper")
    cluster.until(lambda: provisioner.doing(id) == "install", SECONDS)
    cluster.kill("worker")
    task = provisioner.ended(id)
    assert task["state"] == "FAILURE" and task["leftovers"] == [], task
    assert provisioner.left() == []
    assert provisioner.ended(provisioner.create("next", start_vm="false"))["state"] == "SUCCESS"
    failed = cluster.get(f"{PROVISIONER}/status", limit="orphan|next", state="FAILURE")
    assert [each["name"] for each in failed] == ["orphan"]


def test_ten_concurrent_tasks_with_one_profile_succeed(cluster: Cluster, provisioner: Provisioner) -> None:
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


def test_the_log_can_be_followed_live(cluster: Cluster, provisioner: Provisioner) -> None:
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
