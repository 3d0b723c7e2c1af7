"""Every operation of the API is run once and undone; then all is as before: in the store, on the node and in Ceph.

A new operation must be added to the scenario: the test compares it with the document of the API.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from tests.integration.cluster import Cluster, Guests
from tests.integration.provisioner import OVER, SLEEPER
from tests.integration.traces import Before

API = "/api/v1"
NAME, TOO, NODE, POOL, VNI = "undone", "undone-too", "pvchv1", "undone", 230
MAC, SECOND_MAC = "52:54:00:23:00:01", "52:54:00:23:00:02"
READY_SECONDS, RESTORED_SECONDS = 240.0, 90.0
TEMPLATE = "/provisioner/template"
NOOP = "def install(**kwargs):\n    print('nothing to do')\n"


class Scenario:
    """Runs operations, and knows which of the document's were run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        document = cluster.send("GET", "/openapi.json").json
        paths = {path.removeprefix(API): methods for path, methods in document["paths"].items()}
        self.operations = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
        self.ran: set[str] = set()

    def run(self, operation: str, /, *, refused: str = "", at: dict[str, Any] | None = None, **values: Any) -> Any:
        """Run an operation such as `PUT /network/{network}`, with a value for each placeholder, and the others."""
        assert operation in self.operations, operation
        self.ran.add(operation)
        method, template = operation.split(" ")
        path = re.sub(r"\{(\w+)\}", lambda match: str((at or {})[match[1]]), template)
        reply = self.cluster.send(method, path, form=values)
        if refused:
            assert (reply.status, reply.code) == (510, refused), (operation, reply.body)
        else:
            assert reply.status in (200, 209), (operation, reply.body)
        return reply.json if reply.kind == "application/json" else reply.body

    def read_everything(self, at: dict[str, Any]) -> None:
        """Run all operations that only read."""
        for operation in sorted(self.operations):
            if operation.startswith("GET "):
                self.run(operation, at=at)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A block device of 2 GiB that nothing uses."""
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(2 << 30)
    argv = ("losetup", "--find", "--show", str(image))
    found = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    try:
        yield found
    finally:
        subprocess.run(("losetup", "--detach", found), check=False, timeout=10)


def definition(guests: Guests, volume: str, mac: str = MAC) -> str:
    """A VM with a volume and an interface; it finds nothing to boot."""
    root = etree.fromstring(guests.sector(NAME))
    devices = root.find("devices")
    assert devices is not None
    for disk in root.findall("devices/disk"):
        devices.remove(disk)
    disk = etree.SubElement(devices, "disk", {"type": "network", "device": "disk"})
    etree.SubElement(disk, "driver", {"name": "qemu", "type": "raw"})
    etree.SubElement(disk, "source", {"protocol": "rbd", "name": f"{POOL}/{volume}"})
    etree.SubElement(disk, "target", {"dev": "vda", "bus": "virtio"})
    nic = etree.SubElement(devices, "interface", {"type": "bridge"})
    etree.SubElement(nic, "mac", {"address": mac})
    etree.SubElement(nic, "source", {"bridge": f"vmbr{VNI}"})
    etree.SubElement(nic, "model", {"type": "virtio"})
    return etree.tostring(root, encoding="unicode")


def general(do: Scenario) -> None:
    """Log in and out, though no token is needed; and clear the node of VMs, of which there are none."""
    do.run("POST /auth/login")
    do.run("POST /auth/logout")
    do.run("POST /node/{node}/coordinator-state", at={"node": NODE}, **{"coordinator-state": "primary"})
    for wanted, reached in (("flush", "flushed"), ("ready", "ready")):
        do.run("POST /node/{node}/domain-state", at={"node": NODE}, **{"domain-state": wanted})
        do.cluster.until(lambda: do.cluster.node(NODE)["domain_state"] == reached)  # noqa: B023 - asked at once


def make_network(do: Scenario) -> None:
    addresses = {"ip4_network": "10.23.0.0/24", "ip4_gateway": "10.23.0.1", "dhcp4": "true"}
    pool = {"dhcp4_start": "10.23.0.100", "dhcp4_end": "10.23.0.199"}
    do.run("POST /network", vni=VNI, description="first", nettype="managed", **addresses, **pool)
    do.run("PUT /network/{network}", at={"network": "first"}, description=NAME, domain="undone.example")
    at = {"network": NAME}
    do.run("POST /network/{network}/acl", at=at, description="ssh", direction="in", rule="tcp dport 22 accept")
    do.run("POST /network/{network}/lease", at=at, macaddress=MAC, ipaddress="10.23.0.50", hostname="one")
    do.run("POST /network/{network}/dhcp", at=at, macaddress=SECOND_MAC, ipaddress="10.23.0.51", hostname="two")


def unmake_network(do: Scenario) -> None:
    at = {"network": NAME}
    do.run("DELETE /network/{network}/acl/{acl}", at=at | {"acl": "ssh"}, direction="in")
    do.run("DELETE /network/{network}/lease/{lease}", at=at | {"lease": MAC})
    do.run("DELETE /network/{network}/dhcp/{lease}", at=at | {"lease": SECOND_MAC})
    do.run("DELETE /network/{network}", at=at)


def make_storage(do: Scenario, device: str) -> str:
    """Make an OSD, which is returned, and a pool with volumes and a snapshot."""
    for action in ("set", "unset"):
        do.run("POST /storage/ceph/cluster-option", action=action, option="noscrub")
    before = {osd["id"] for osd in do.cluster.get("/storage/ceph/osd")}
    do.run("POST /storage/ceph/osd", node=NODE, device=device, weight=1)
    (osd,) = {osd["id"] for osd in do.cluster.get("/storage/ceph/osd")} - before
    for state in ("out", "in"):
        do.run("POST /storage/ceph/osd/{osd}/state", at={"osd": osd}, state=state)
    do.run("POST /storage/ceph/pool", pool=POOL, pgs=8, replcfg="copies=1,mincopies=1")
    do.run("POST /storage/ceph/volume", pool=POOL, volume="root", size="16M")
    do.run("POST /storage/ceph/volume", pool=POOL, volume="copy", source_volume="root")
    at = {"pool": POOL, "volume": "copy"}
    do.run("PUT /storage/ceph/volume/{pool}/{volume}", at=at, size="24M")
    do.run("PUT /storage/ceph/volume/{pool}/{volume}", at=at, name="other")
    do.run("POST /storage/ceph/volume/snapshot", pool=POOL, volume="other", snapshot="now")
    snapshot = "/storage/ceph/volume/snapshot/{pool}/{volume}/{snapshot}"
    at = {"pool": POOL, "volume": "other"}
    do.run(f"PUT {snapshot}", at=at | {"snapshot": "now"}, name="then")
    do.run(f"POST {snapshot}/rollback", at=at | {"snapshot": "then"})
    return str(osd)


def unmake_storage(do: Scenario, osd: str) -> None:
    at = {"pool": POOL, "volume": "other", "snapshot": "then"}
    do.run("DELETE /storage/ceph/volume/snapshot/{pool}/{volume}/{snapshot}", at=at)
    do.run("DELETE /storage/ceph/volume/{pool}/{volume}", at=at)
    do.run("DELETE /storage/ceph/pool/{pool}", at=at, yes_i_really_mean_it="")
    do.run("DELETE /storage/ceph/osd/{osd}", at={"osd": osd}, yes_i_really_mean_it="")


def make_vm(do: Scenario, guests: Guests) -> None:
    """Define a VM, start and stop it, and leave it started; with one node there is none to migrate to."""
    at = {"vm": NAME}
    do.run("POST /vm", xml=definition(guests, "root", SECOND_MAC))
    do.run("POST /vm/{vm}", at=at, autostart="")
    uuid = do.cluster.vm(NAME)["uuid"]
    changed = re.sub(r"<uuid>.*</uuid>", f"<uuid>{uuid}</uuid>", definition(guests, "root"))
    do.run("PUT /vm/{vm}", at=at, xml=changed)
    do.run("POST /vm/{vm}/locks", at=at)
    do.run("POST /vm/{vm}/node", at=at, action="migrate", refused="no-suitable-node")
    for state, running in (("start", True), ("stop", False), ("start", True)):
        do.run("POST /vm/{vm}/state", at=at, state=state)
        do.cluster.until_state(NAME, state, running)


def make_templates(do: Scenario) -> None:
    """Make one template of each kind by each of the two ways, a script and a profile."""
    system, disk = {"vcpus": 1, "vram": 64}, {"pool": POOL, "disk_size": 1}
    made: list[tuple[str, dict[str, Any]]] = [
        (f"{TEMPLATE}/system", system),
        (f"{TEMPLATE}/network", {"mac_template": "{prefix}:23:{vmid}0:0{netid}"}),
        (f"{TEMPLATE}/storage", {}),
        (f"{TEMPLATE}/userdata", {"data": "#cloud-config\nhostname: {{ vm_name }}\n"}),
        ("/provisioner/script", {"data": SLEEPER}),
        (
            "/provisioner/profile",
            {f"{kind}_template": NAME for kind in ("system", "network", "storage", "userdata")} | {"script": NAME},
        ),
    ]
    for path, values in made:
        do.run(f"POST {path}", name=NAME, **values)
        do.run(f"POST {path}/{{name}}", at={"name": TOO}, **values)
        if path == f"{TEMPLATE}/storage":
            do.run(f"POST {path}/{{name}}/disk", at={"name": NAME}, disk_id="sda", filesystem="ext2", **disk)
            do.run(f"POST {path}/{{name}}/disk/{{disk_id}}", at={"name": TOO, "disk_id": "sda"}, **disk)
        if path == f"{TEMPLATE}/network":
            do.run(f"POST {path}/{{name}}/net", at={"name": NAME}, vni=VNI)
            do.run(f"POST {path}/{{name}}/net/{{vni}}", at={"name": TOO, "vni": VNI})
    data = {"data": "#cloud-config\nhostname: changed\n"}
    do.run(f"PUT {TEMPLATE}/userdata", name=NAME, **data)
    do.run(f"PUT {TEMPLATE}/userdata/{{name}}", at={"name": TOO}, **data)
    do.run("PUT /provisioner/script", name=TOO, data=NOOP)


def unmake_templates(do: Scenario) -> None:
    do.run(f"DELETE {TEMPLATE}/storage/{{name}}/disk", at={"name": NAME}, disk_id="sda")
    do.run(f"DELETE {TEMPLATE}/storage/{{name}}/disk/{{disk_id}}", at={"name": TOO, "disk_id": "sda"})
    do.run(f"DELETE {TEMPLATE}/network/{{name}}/net", at={"name": NAME}, vni=VNI)
    do.run(f"DELETE {TEMPLATE}/network/{{name}}/net/{{vni}}", at={"name": TOO, "vni": VNI})
    kinds = (f"{TEMPLATE}/{kind}" for kind in ("system", "network", "storage", "userdata"))
    for path in ("/provisioner/profile", "/provisioner/script", *kinds):
        for name in (NAME, TOO):
            do.run(f"DELETE {path}/{{name}}", at={"name": name})


def build(do: Scenario) -> str:
    """Build a VM, but cancel that amid its script; then build another one, whose task is returned."""

    def create(name: str) -> str:
        return str(do.run("POST /provisioner/create", name=name, profile=NAME, start_vm="false")["task_id"])

    def task(id: str) -> Any:
        return do.cluster.get(f"/provisioner/status/{id}")

    def at_install(id: str) -> bool:
        return any(step["name"] == "install" and step["state"] == "running" for step in task(id)["steps"])

    first = create("built1")
    do.cluster.until(lambda: at_install(first), READY_SECONDS)
    assert do.cluster.refused("DELETE", "/vm/built1") == "vm-busy"
    do.run("DELETE /provisioner/status/{task_id}", at={"task_id": first})
    do.cluster.until(lambda: task(first)["state"] in OVER, READY_SECONDS)
    assert (task(first)["state"], task(first)["leftovers"]) == ("CANCELLED", [])
    do.run("PUT /provisioner/script/{name}", at={"name": NAME}, data=NOOP)
    second = create("built2")
    do.cluster.until(lambda: task(second)["state"] in OVER, READY_SECONDS)
    assert task(second)["state"] == "SUCCESS", task(second)
    return second


def test_every_operation_can_be_undone_without_a_trace(cluster: Cluster, guests: Guests, device: str) -> None:
    do, before = Scenario(cluster), Before(cluster)
    general(do)
    make_network(do)
    osd = make_storage(do, device)
    make_vm(do, guests)
    make_templates(do)
    task = build(do)

    place = {"network": NAME, "acl": "ssh", "lease": MAC, "node": NODE, "name": NAME, "task_id": task, "vni": VNI}
    place |= {"disk_id": "sda", "osd": osd, "pool": POOL, "volume": "other", "snapshot": "then", "vm": NAME}
    do.read_everything(place)

    do.run("DELETE /vm/{vm}", at={"vm": NAME}, delete_disks="")
    do.run("DELETE /vm/{vm}", at={"vm": "built2"}, delete_disks="")
    unmake_templates(do)
    unmake_storage(do, osd)
    unmake_network(do)
    assert do.operations - do.ran == set()
    before.is_restored(RESTORED_SECONDS)
