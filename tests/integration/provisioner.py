"""The provisioner of a sandbox as tests see it: what it builds, and all that is left of it anywhere."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pvcd_plugins.sandbox import ceph
from pvcd_plugins.sandbox.cluster import FILES
from tests.integration.cluster import Cluster, Guests

EXAMPLES = Path(__file__).parents[2] / "plugins/provisioner/examples"
PROVISIONER = "/provisioner"
SECONDS = 180.0
OVER = ("SUCCESS", "FAILURE", "CANCELLED")
BOOTABLE = "-O=^64bit,^metadata_csum"
"""The filesystem_arg of an ext4 that the boot loader can read."""
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

    def ended(self, id: str, seconds: float = SECONDS) -> Any:
        """The task when it is over."""
        self.cluster.until(lambda: self.task(id)["state"] in OVER, seconds)
        return self.task(id)

    def doing(self, id: str) -> str | None:
        running = [step["name"] for step in self.task(id)["steps"] if step["state"] == "running"]
        return running[0] if running else None

    def script(self, name: str, text: str, **values: Any) -> None:
        """A script, and a profile of its name that lets it run over one disk."""
        self.cluster.post(f"{PROVISIONER}/script", name=name, data=text)
        self.profile(name, script=name, **values)

    def profile(self, name: str, **values: Any) -> None:
        """A profile with the templates that there are, unless others are named."""
        usual = {"system_template": "small", "network_template": "built", "storage_template": "root"}
        self.cluster.post(f"{PROVISIONER}/profile", name=name, **(usual | {"userdata_template": "empty"} | values))

    def storage(self, name: str, **values: Any) -> None:
        """A storage template with one disk, which is mounted at /."""
        self.cluster.post(f"{PROVISIONER}/template/storage", name=name)
        disk = {"disk_id": "sda", "pool": ceph.POOL, "disk_size": 1, "filesystem": "ext4", "mountpoint": "/"}
        self.cluster.post(f"{PROVISIONER}/template/storage/{name}/disk", **(disk | values))

    def volumes(self) -> list[str]:
        argv = ["rbd", "--conf", str(self.conf), "ls", ceph.POOL]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.split()

    def left(self) -> list[str]:
        """Volumes, devices and mounts of what was built, and VMs."""
        loops = subprocess.run(["losetup", "-J"], capture_output=True, check=True, timeout=60).stdout
        used = json.loads(loops or '{"loopdevices": []}')["loopdevices"]
        at = str(self.cluster.directory)
        devices = [loop["back-file"] for loop in used if loop["back-file"].startswith(at)]
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{at}/mapping" in line]
        return [*self.volumes(), *devices, *mounts, *(vm["name"] for vm in self.cluster.get("/vm"))]

    def clear(self) -> None:
        """Remove all VMs with their disks; nothing is left then."""
        for vm in self.cluster.get("/vm"):
            self.cluster.ask("DELETE", f"/vm/{vm['name']}", delete_disks="true")
        self.cluster.until(lambda: not self.left(), 60)


@contextlib.contextmanager
def prepared(cluster: Cluster, guests: Guests) -> Iterator[Provisioner]:
    """Create templates and a profile that builds the tiny guest, for the block."""
    post, made = cluster.post, Provisioner(cluster)
    files = cluster.directory / FILES  # which scripts see
    files.mkdir(exist_ok=True)
    for file, name in zip(guests.tiny, ("vmlinuz", "initrd"), strict=True):
        shutil.copyfile(file, files / name)
    post("/network", **NETWORK)
    post(f"{PROVISIONER}/template/system", name="small", vcpus=1, vram=128, serial="true")
    post(f"{PROVISIONER}/template/network", name="built")
    post(f"{PROVISIONER}/template/network/built/net", vni=220)
    post(f"{PROVISIONER}/template/userdata", name="hello", data="#cloud-config\nhostname: {{ vm_name }}\n")
    made.storage("root", filesystem_arg=BOOTABLE)
    post(f"{PROVISIONER}/script", name="tiny", data=(EXAMPLES / "tiny.py").read_text())
    arguments = [f"kernel={files}/vmlinuz", f"initrd={files}/initrd"]
    made.profile("tiny", userdata_template="hello", script="tiny", arg=arguments)
    made.script("sleeper", SLEEPER)
    try:
        yield made
    finally:
        kinds = ("system", "network", "storage", "userdata")
        for kind in ("profile", "script", *(f"template/{each}" for each in kinds)):
            for each in cluster.get(f"{PROVISIONER}/{kind}"):
                if each["name"] != "empty":
                    cluster.delete(f"{PROVISIONER}/{kind}/{each['name']}")
        cluster.delete("/network/built")
        shutil.rmtree(files)
