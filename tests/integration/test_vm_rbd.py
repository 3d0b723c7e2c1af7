"""VMs on volumes of a real Ceph: start, faults, exclusive access, guards and removal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from pvcd_plugins.sandbox import ceph, guest
from tests.integration.cluster import Cluster, Guests

POOL = ceph.POOL
GREETING = "pvcd boot sector"


class Volumes:
    """The volumes of a test, made and looked at with Ceph's own programs."""

    def __init__(self, cluster: Cluster, image: Path) -> None:
        self._conf = str(ceph.conf(cluster.directory / "ceph"))
        self._image = str(image)

    def rbd(self, *arguments: str) -> str:
        return self.ask("rbd", *arguments)

    def ask(self, program: str, *arguments: str) -> str:
        argv = [program, "--conf", self._conf, *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    def bootable(self, name: str) -> str:
        """A volume that a guest boots from."""
        self.rbd("import", "--no-progress", self._image, f"{POOL}/{name}")
        return f"{POOL}/{name}"

    def names(self) -> list[str]:
        return self.rbd("ls", POOL).split()

    def write_until_killed(self, volume: str) -> None:
        """Leave the lock of a client behind that was killed while it wrote."""
        argv = ["rbd", "--conf", self._conf, "bench", "--io-type", "write", "--io-total", "1G", volume]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                if line.split()[:1] == ["1"]:  # the first second of writing is over
                    break
            writer.kill()

    def remove_all(self) -> None:
        for name in self.names():
            subprocess.run(["rbd", "--conf", self._conf, "snap", "purge", f"{POOL}/{name}"], check=False, timeout=60)
            self.rbd("rm", "--no-progress", f"{POOL}/{name}")


@pytest.fixture
def volumes(cluster: Cluster, tmp_path: Path) -> Iterator[Volumes]:
    """The volumes that there are, none of which outlives the test; nor does a VM that names one."""
    made = Volumes(cluster, guest.boot_sector(tmp_path / "boot.img"))
    yield made
    for vm in cluster.get("/vm"):
        cluster.ask("DELETE", f"/vm/{vm['name']}")
    made.remove_all()


def on_volumes(guests: Guests, name: str, *volumes: str) -> str:
    """A guest that boots from the first of these volumes."""
    root = etree.fromstring(guests.sector(name))
    devices = root.find("devices")
    [old] = root.findall("devices/disk")
    assert devices is not None
    devices.remove(old)
    for letter, volume in zip("abcd", volumes, strict=False):
        disk = etree.SubElement(devices, "disk", {"type": "network", "device": "disk"})
        etree.SubElement(disk, "driver", {"name": "qemu", "type": "raw", "discard": "unmap"})
        etree.SubElement(disk, "source", {"protocol": "rbd", "name": volume})
        etree.SubElement(disk, "target", {"dev": f"vd{letter}", "bus": "virtio"})
    return etree.tostring(root, encoding="unicode")


def start(cluster: Cluster, name: str, xml: str) -> int:
    """The process of a guest that is defined, started, and has greeted."""
    cluster.post("/vm", xml=xml)
    cluster.post(f"/vm/{name}/state", state="start")
    cluster.until_state(name, "start", True)
    cluster.until(lambda: GREETING in cluster.get(f"/vm/{name}/console")["data"])
    pid = cluster.qemu(name)
    assert pid is not None
    return pid


def seen(cluster: Cluster, pool: str, volume: str) -> bool:
    """Return whether the API knows of a volume by now."""
    return cluster.ask("GET", f"/storage/ceph/volume/{pool}/{volume}")[0] == 200


def test_a_vm_boots_from_a_volume_and_survives_its_agent_and_libvirtd(
    cluster: Cluster, guests: Guests, volumes: Volumes
) -> None:
    pid = start(cluster, "web1", on_volumes(guests, "web1", volumes.bootable("web1_vda")))
    for server in ("node", "libvirtd"):
        old = cluster.kill(server)
        cluster.until(lambda: cluster.server(server)["pid"] not in (None, old))  # noqa: B023 - asked at once
        cluster.until(lambda: cluster.get("/node/pvchv1/daemon-state")["daemon_state"] == "run")
        cluster.until_state("web1", "start", True)
        assert cluster.qemu("web1") == pid
    # libvirtd has forgotten the key by now, which the next start needs.
    cluster.post("/vm/web1/state", state="stop")
    cluster.until_state("web1", "stop", False)
    cluster.until(lambda: cluster.ask("POST", "/vm/web1/state", state="start")[0] == 200)
    cluster.until_state("web1", "start", True)
    assert cluster.qemu("web1") not in (None, pid)


def test_the_key_is_on_no_command_line_and_in_no_log(cluster: Cluster, guests: Guests, volumes: Volumes) -> None:
    pid = start(cluster, "web1", on_volumes(guests, "web1", volumes.bootable("web1_vda")))
    key = volumes.ask("ceph", "auth", "get-key", "client.libvirt").strip()
    assert len(key) > 30
    assert key not in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    logs = [*(cluster.directory / "log").glob("*.log"), *(cluster.directory / "libvirt" / "log").rglob("*.log")]
    assert logs
    assert [log for log in logs if key in log.read_text(errors="replace")] == []
    assert "<auth" not in cluster.vm("web1")["xml"]


def test_a_missing_volume_is_reported_with_the_error_of_libvirt(
    cluster: Cluster, guests: Guests, volumes: Volumes
) -> None:
    cluster.post("/vm", xml=on_volumes(guests, "web1", f"{POOL}/later"))
    cluster.post("/vm/web1/state", state="start")
    cluster.until(lambda: "later" in (cluster.vm("web1")["failed_reason"] or ""))
    volumes.bootable("later")
    cluster.until_state("web1", "start", True, 60)


def test_volumes_are_removed_with_a_running_vm(cluster: Cluster, guests: Guests, volumes: Volumes) -> None:
    first, second = volumes.bootable("web1_vda"), volumes.bootable("web1_vdb")
    volumes.bootable("other")
    start(cluster, "web1", on_volumes(guests, "web1", first, second))
    status, reply = cluster.ask("DELETE", "/vm/web1", delete_disks="")
    assert (status, reply) == (200, {"message": "VM 'web1' removed with its volumes."})
    assert volumes.names() == ["other"]
    assert cluster.get("/vm") == []
    assert cluster.qemu("web1") is None


def test_volumes_that_cannot_be_removed_are_named_and_the_removal_can_be_repeated(
    cluster: Cluster, guests: Guests, volumes: Volumes
) -> None:
    volume, second = volumes.bootable("web1_vda"), volumes.bootable("web1_vdb")
    volumes.rbd("snap", "create", "--no-progress", f"{volume}@keep")
    pid = start(cluster, "web1", on_volumes(guests, "web1", volume, second))
    status, reply = cluster.ask("DELETE", "/vm/web1", delete_disks="")
    assert (status, reply["code"]) == (510, "volumes-not-removed")
    assert volume in reply["message"] and "snapshots" in reply["message"]
    assert cluster.get("/vm/web1/state") == {"name": "web1", "state": "start", "running": True}
    assert (cluster.qemu("web1"), volumes.names()) == (pid, ["web1_vda", "web1_vdb"])
    volumes.rbd("snap", "purge", "--no-progress", volume)
    assert cluster.ask("DELETE", "/vm/web1", delete_disks="")[0] == 200
    assert (volumes.names(), cluster.get("/vm")) == ([], [])


def test_two_vms_on_one_volume_are_not_started_together(cluster: Cluster, guests: Guests, volumes: Volumes) -> None:
    volume = volumes.bootable("shared")
    start(cluster, "web1", on_volumes(guests, "web1", volume))
    cluster.post("/vm", xml=on_volumes(guests, "web2", volume))
    status, reply = cluster.ask("POST", "/vm/web2/state", state="start")
    assert (status, reply["code"]) == (510, "volume-in-use")
    assert "web1" in reply["message"]
    cluster.post("/vm/web1/state", state="stop")
    cluster.until_state("web1", "stop", False)
    cluster.post("/vm/web2/state", state="start")
    cluster.until_state("web2", "start", True)
    assert cluster.qemu("web1") is None


def test_the_locks_of_a_killed_client_are_listed_and_cleared(
    cluster: Cluster, guests: Guests, volumes: Volumes
) -> None:
    volumes.rbd("create", "--size", "256M", f"{POOL}/data")
    start(cluster, "web1", on_volumes(guests, "web1", volumes.bootable("web1_vda"), f"{POOL}/data"))
    status, reply = cluster.ask("POST", "/vm/web1/locks")
    assert (status, reply["code"]) == (510, "vm-not-stopped")
    cluster.post("/vm/web1/state", state="stop")
    cluster.until_state("web1", "stop", False)
    volumes.write_until_killed(f"{POOL}/data")
    [lock] = cluster.get("/vm/web1/locks")
    assert (lock["pool"], lock["volume"]) == (POOL, "data")
    assert lock["locker"].startswith("client.") and lock["address"]
    assert cluster.post("/vm/web1/locks")["message"] == "1 lock of VM 'web1' broken."
    assert cluster.get("/vm/web1/locks") == []
    assert json.loads(volumes.rbd("lock", "ls", "--format", "json", f"{POOL}/data")) == []
    cluster.post("/vm/web1/state", state="start")
    cluster.until_state("web1", "start", True)


def test_a_volume_is_not_taken_from_its_vm(cluster: Cluster, guests: Guests, volumes: Volumes) -> None:
    volume = volumes.bootable("web1_vda")
    volumes.rbd("snap", "create", "--no-progress", f"{volume}@now")
    cluster.post("/vm", xml=on_volumes(guests, "web1", volume))
    cluster.until(lambda: seen(cluster, POOL, "web1_vda"), 40)
    path, snapshot = f"/storage/ceph/volume/{POOL}/web1_vda", f"/storage/ceph/volume/snapshot/{POOL}/web1_vda/now"

    def refused(method: str, path: str, **values: Any) -> None:
        status, reply = cluster.ask(method, path, **values)
        assert (status, reply.get("code")) == (510, "volume-in-use"), reply
        assert "in use by VM 'web1'" in reply["message"]

    refused("DELETE", path)
    refused("PUT", path, name="other")
    refused("PUT", path, size="4096")
    refused("DELETE", f"/storage/ceph/pool/{POOL}", yes_i_really_mean_it="")
    assert cluster.ask("PUT", path, size="8M")[0] == 200
    cluster.post("/vm/web1/state", state="start")
    cluster.until_state("web1", "start", True)
    refused("POST", f"{snapshot}/rollback")
    assert volumes.names() == ["web1_vda"]
    cluster.ask("DELETE", "/vm/web1")
    assert cluster.ask("POST", f"{snapshot}/rollback")[0] == 200


def test_a_removal_of_volumes_interrupted_by_a_killed_agent_can_be_finished(
    cluster: Cluster, guests: Guests, volumes: Volumes
) -> None:
    start(cluster, "web1", on_volumes(guests, "web1", volumes.bootable("web1_vda")))
    pid = cluster.server("node")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        status, _ = cluster.ask("DELETE", "/vm/web1", delete_disks="")
    finally:
        cluster.kill("node")
    assert status == 510
    assert volumes.names() == ["web1_vda"]
    cluster.until(lambda: cluster.get("/node/pvchv1/daemon-state")["daemon_state"] == "run")
    cluster.until(lambda: cluster.ask("DELETE", "/vm/web1", delete_disks="")[0] == 200, 60)
    assert (volumes.names(), cluster.get("/vm")) == ([], [])
