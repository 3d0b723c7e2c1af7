"""A guest keeps the networks and volumes that it was started with, whatever its VM's definition says by now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pvcd import Delete
from pvcd.clock import settle
from pvcd_plugins.vm.hypervisor import GuestSilent
from pvcd_plugins.vm.indexes import ALLOCATION_INDEX
from pvcd_plugins.vm.records import VM, VMReport
from tests.unit.vm.conftest import domain_xml, uuid_of
from tests.unit.vm.storage import StorageCluster, with_disks


@pytest.fixture
async def cluster() -> AsyncIterator[StorageCluster]:
    made = StorageCluster("hv1")
    async with made.simulated:
        await made.simulated.advance(2)
        await made.ask("POST", "/network", vni=200, description="app", nettype="bridged")
        yield made


def at_network(name: str, *volumes: str, read_only: bool = False) -> str:
    nic = "<interface type='bridge'><source bridge='vmbr200'/></interface>"
    return with_disks(name, *volumes, read_only=read_only).replace("</devices>", f"{nic}</devices>")


async def test_a_network_stays_while_a_guest_runs_at_it(cluster: StorageCluster) -> None:
    await cluster.ask("POST", "/vm", xml=at_network("web1"))
    await cluster.start("web1")
    await cluster.ask("PUT", "/vm/web1", xml=with_disks("web1"))
    reply = await cluster.ask("DELETE", "/network/app", 510)
    assert reply["message"] == "Cannot remove network 'app': in use by VM 'web1'. Detach them first."
    await cluster.stop("web1")
    await cluster.ask("DELETE", "/network/app")


async def test_a_volume_stays_while_a_guest_reads_it(cluster: StorageCluster) -> None:
    cluster.ceph.volumes["isos", "debian"] = []
    await cluster.define("web1", "isos/debian", read_only=True)
    await cluster.define("web2", "isos/debian")
    await cluster.start("web1")
    await cluster.ask("PUT", "/vm/web1", xml=with_disks("web1"))
    assert (await cluster.start("web2", 510))["code"] == "volume-in-use"
    reply = await cluster.while_time_passes("DELETE", "/vm/web2", delete_disks="")
    assert reply["warnings"] == ["Volume 'isos/debian' kept: in use by VM 'web1'."]
    await cluster.stop("web1")
    await cluster.define("web2", "isos/debian")
    await cluster.while_time_passes("DELETE", "/vm/web2", delete_disks="")
    assert cluster.ceph.removed == ["isos/debian"]


async def test_what_a_guest_uses_is_written_before_it_is_started(
    cluster: StorageCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypervisor = cluster.hypervisors["hv1"]
    start, known = hypervisor.start, []

    async def watched(xml: str) -> None:
        report = cluster.simulated.agents["hv1"].store.get(VMReport, uuid_of("web1"))
        known.append(report and report.guest_use and [str(volume) for volume in report.guest_use.volumes])
        await start(xml)

    monkeypatch.setattr(hypervisor, "start", watched)
    await cluster.define("web1", "vms/a")
    await cluster.start("web1")
    assert known == [["vms/a"]]
    await cluster.stop("web1")
    assert [report.guest_use for report in cluster.simulated.api.store.all(VMReport)] == [None]


async def test_a_guest_that_comes_up_late_keeps_what_it_was_started_with(
    cluster: StorageCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypervisor = cluster.hypervisors["hv1"]
    start = hypervisor.start

    async def late(xml: str) -> None:
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(start(xml)))
        raise GuestSilent("Cannot start the guest: its QEMU has not answered.")

    monkeypatch.setattr(hypervisor, "start", late)
    await cluster.ask("POST", "/vm", xml=at_network("web1"))
    await cluster.start("web1")
    assert (await cluster.ask("GET", "/vm/web1/state"))["running"]
    await cluster.ask("PUT", "/vm/web1", xml=with_disks("web1"))
    assert (await cluster.ask("DELETE", "/network/app", 510))["code"] == "network-in-use"


async def test_a_guest_is_known_again_after_a_restart_of_its_agent(cluster: StorageCluster) -> None:
    await cluster.ask("POST", "/vm", xml=at_network("web1"))
    await cluster.start("web1")
    await cluster.ask("PUT", "/vm/web1", xml=with_disks("web1"))
    await cluster.simulated.kill_agent("hv1")
    await cluster.simulated.start_agent("hv1")
    await cluster.simulated.advance(5)
    assert (await cluster.ask("DELETE", "/network/app", 510))["code"] == "network-in-use"


async def test_no_report_outlives_a_vm_that_is_removed_at_once(
    cluster: StorageCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node has read the VM, and writes its report only after the VM was removed."""
    await cluster.define("web0")
    await cluster.simulated.advance(1)
    store = cluster.simulated.agents["hv1"].store
    write, removed = store.write, []

    async def late(*changes: Any) -> None:
        paths = [change.record.path for change in changes]
        if not removed and VMReport.at(uuid_of("web1")) in paths:
            removed.append(True)
            api = cluster.simulated.api.store
            await api.write(Delete(next(vm for vm in api.all(VM) if vm.name == "web1")))
        await write(*changes)

    monkeypatch.setattr(store, "write", late)
    await cluster.define("web1")
    await cluster.simulated.advance(5)
    assert removed
    assert [path for path in cluster.simulated.server.documents if str(uuid_of("web1")) in path] == []


@pytest.mark.parametrize("pause", range(12))
async def test_a_vm_that_is_removed_at_once_leaves_nothing(cluster: StorageCluster, pause: int) -> None:
    before = set(cluster.simulated.server.documents)
    await cluster.ask("POST", "/vm", xml=at_network("web1", "vms/a"))
    for _ in range(pause):
        await asyncio.sleep(0)
    await cluster.while_time_passes("DELETE", "/vm/web1")
    await settle()
    await cluster.simulated.advance(60)
    assert set(cluster.simulated.server.documents) == before


async def test_a_guest_takes_the_memory_that_it_was_started_with(cluster: StorageCluster) -> None:
    allocated = cluster.simulated.api[ALLOCATION_INDEX].of("hv1")
    large, small = (domain_xml("web1", memory=memory, vcpus=memory // 128) for memory in (512, 128))
    await cluster.ask("POST", "/vm", xml=large)
    await cluster.start("web1")
    assert (allocated.memory, allocated.vcpus) == (512, 4)
    await cluster.ask("PUT", "/vm/web1", xml=small)
    assert (allocated.vms, allocated.memory, allocated.vcpus) == (1, 512, 4)
    await cluster.ask("POST", "/vm/web1/state", state="restart")
    await cluster.simulated.advance(5)
    assert (allocated.memory, allocated.vcpus) == (128, 1)
    await cluster.ask("PUT", "/vm/web1", xml=large)
    assert (allocated.memory, allocated.vcpus) == (512, 4)
    await cluster.stop("web1")
    assert (allocated.vms, allocated.memory, allocated.vcpus) == (1, 0, 0)
    await cluster.while_time_passes("DELETE", "/vm/web1")
    assert (allocated.vms, allocated.memory, allocated.vcpus) == (0, 0, 0)
