"""A VM as the API shows it."""

from __future__ import annotations

from pvcd import Create, Delete, Put
from pvcd_plugins.vm.records import VM, State, VMReport

from .conftest import Cluster, domain_xml, uuid_of

FULL = """<domain type='kvm'><name>web1</name><uuid>{uuid}</uuid><description>The shop</description>
<memory unit='GiB'>2</memory><vcpu>4</vcpu><cpu><topology sockets='1' cores='2' threads='2'/></cpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/><apic/></features><devices>
<emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='network' device='disk'><source protocol='rbd' name='vms/web1_sda'/><target dev='sda' bus='scsi'/></disk>
<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br200'/><model type='virtio'/></interface>
<controller type='scsi' model='virtio-scsi'/><console type='pty'/></devices></domain>"""


async def shown(cluster: Cluster, name: str = "web1") -> dict[str, object]:
    (vm,) = await cluster.get(f"vm/{name}")
    assert isinstance(vm, dict)
    return vm


async def report(cluster: Cluster, name: str = "web1", **values: object) -> None:
    old = cluster.context.store.get(VMReport, uuid_of(name))
    said = {"uuid": uuid_of(name), "node": "hv1", "observed_generation": 1, "updated": 17.5} | values
    new = VMReport.model_validate(said)
    await cluster.context.store.write(Put(old.changed(**said)) if old else Create(new))


async def test_every_field_of_a_vm_is_shown_with_its_type(cluster: Cluster) -> None:
    xml = FULL.format(uuid=uuid_of("web1"))
    await cluster.add_vm("web1", xml=xml, last_node="hv2", node_limit=("hv1", "hv2"), node_selector="load")
    await report(cluster, running=True, guest_generation=1)
    vm = await shown(cluster)
    networks, disks = vm.pop("networks"), vm.pop("disks")
    assert vm == {
        "name": "web1",
        "uuid": str(uuid_of("web1")),
        "state": "start",
        "running": True,
        "node": "hv1",
        "last_node": "hv2",
        "migrated": "from hv2",
        "failed_reason": None,
        "updated": 17.5,
        "node_limit": ["hv1", "hv2"],
        "node_selector": "load",
        "node_autostart": False,
        "description": "The shop",
        "profile": None,
        "memory": 2048,
        "vcpu": 4,
        "vcpu_topology": "1/2/2",
        "type": "hvm",
        "arch": "x86_64",
        "machine": "q35",
        "console": "pty",
        "emulator": "/usr/bin/qemu-system-x86_64",
        "features": ["acpi", "apic"],
        "controllers": [{"type": "scsi", "model": "virtio-scsi"}],
        "xml": xml,
    }
    interface = {"type": "bridge", "mac": "52:54:00:00:00:01", "source": "br200", "model": "virtio"}
    assert networks == [{**interface, "ip4_address": None, "ip6_address": None}]
    assert disks == [{"type": "rbd", "name": "vms/web1_sda", "dev": "sda", "bus": "scsi"}]


async def test_missing_values_are_null_and_the_default_selector_is_named(cluster: Cluster) -> None:
    await cluster.add_vm("web1", generation=0, state=State.STOP)
    vm = await shown(cluster)
    for key in ("last_node", "failed_reason", "updated", "node_limit", "description", "profile", "vcpu_topology"):
        assert vm[key] is None, key
    assert (vm["migrated"], vm["node_selector"], vm["running"], vm["features"]) == ("no", "mem", False, [])


async def test_a_report_is_shown_at_once(cluster: Cluster) -> None:
    await cluster.add_vm("web1")
    assert (await shown(cluster))["running"] is False
    await report(cluster, running=True, guest_generation=1)
    assert (await shown(cluster))["running"] is True
    await report(cluster, running=False, failed_reason="It has no disk.")
    vm = await shown(cluster)
    assert (vm["state"], vm["failed_reason"]) == ("fail", "It has no disk.")
    assert await cluster.get("vm/web1/state") == {"name": "web1", "state": "fail", "running": False}


async def test_a_change_of_the_vm_is_shown_at_once(cluster: Cluster) -> None:
    await cluster.add_vm("web1")
    old = cluster.context.store.get(VM, uuid_of("web1"))
    assert old is not None
    await shown(cluster)
    await cluster.context.store.write(Put(old.changed(xml=domain_xml("web1", memory=999), node="hv2")))
    vm = await shown(cluster)
    assert (vm["memory"], vm["node"]) == (999, "hv2")
    assert [(each["memory"], each["node"]) for each in await cluster.get("vm")] == [(999, "hv2")]


async def test_a_vm_that_was_removed_and_made_again_is_shown_as_the_new_one(cluster: Cluster) -> None:
    await cluster.add_vm("web1")
    await report(cluster, running=True)
    await shown(cluster)
    records = [cluster.context.store.find(path) for path in ("/vm-names/web1", f"/vms/{uuid_of('web1')}/report")]
    vm = cluster.context.store.get(VM, uuid_of("web1"))
    await cluster.context.store.write(*(Delete(record) for record in (*records, vm) if record))
    assert await cluster.get("vm") == []
    await cluster.get("vm/web1", 510)
    await cluster.add_vm("web1", memory=64)
    new = await shown(cluster)
    assert (new["memory"], new["running"]) == (64, False)


async def test_vms_are_listed_by_name(cluster: Cluster) -> None:
    for name in ("web2", "web10", "db"):
        await cluster.add_vm(name)
    assert [vm["name"] for vm in await cluster.get("vm")] == ["db", "web10", "web2"]
    assert [vm["name"] for vm in await cluster.get("vm?limit=web")] == ["web10", "web2"]
    assert [vm["name"] for vm in await cluster.get(f"vm?limit={uuid_of('db')}")] == ["db"]
    assert await cluster.get("vm?limit=nothing") == []


async def test_a_vm_of_the_same_name_in_another_cluster_is_another(cluster: Cluster) -> None:
    """Together with the next test: both make a VM in the same transaction number, with different memory."""
    await cluster.add_vm("same", memory=100)
    assert (await shown(cluster, "same"))["memory"] == 100


async def test_a_vm_of_the_same_name_in_a_new_cluster_is_another(cluster: Cluster) -> None:
    await cluster.add_vm("same", memory=200)
    assert (await shown(cluster, "same"))["memory"] == 200


async def test_a_definition_that_cannot_be_read_does_not_hide_other_vms(cluster: Cluster) -> None:
    await cluster.add_vm("odd", xml="<nonsense/>")
    await cluster.add_vm("web1")
    odd, web1 = await cluster.get("vm")
    assert (odd["name"], odd["memory"], odd["disks"]) == ("odd", 0, [])
    assert "nonsense" in odd["failed_reason"]
    assert web1["memory"] > 0
