"""A VM's volumes are removed with it on request, and its locks are broken when no VM can hold them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pvcd import Failed
from pvcd_plugins.vm.records import VM
from tests.unit.vm.conftest import uuid_of
from tests.unit.vm.storage import LOCK, StorageCluster, with_disks


@pytest.fixture
async def cluster() -> AsyncIterator[StorageCluster]:
    made = StorageCluster()
    async with made.simulated:
        await made.simulated.advance(2)
        made.ceph.volumes = {("vms", "a"): [], ("vms", "b"): []}
        yield made


async def test_a_running_vm_is_stopped_before_its_volumes_go(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a", "vms/b")
    await cluster.start("web1")
    [hypervisor] = cluster.hypervisors.values()
    destroy = hypervisor.destroy
    at_the_end: list[list[str]] = []

    async def watched(uuid: object) -> None:
        at_the_end.append(list(cluster.ceph.removed))
        await destroy(uuid_of("web1"))

    hypervisor.destroy = watched  # type: ignore[method-assign]
    reply = await cluster.while_time_passes("DELETE", "/vm/web1", delete_disks="")
    assert reply == {"message": "VM 'web1' removed with its volumes."}
    assert at_the_end == [[]]
    assert sorted(cluster.ceph.removed) == ["vms/a", "vms/b"]
    assert await cluster.ask("GET", "/vm") == []
    assert await hypervisor.domains() == {}


async def test_a_stopped_vm_is_removed_with_its_remaining_volumes(cluster: StorageCluster) -> None:
    del cluster.ceph.volumes["vms", "a"]
    await cluster.define("web1", "vms/a", "vms/b")
    await cluster.while_time_passes("DELETE", "/vm/web1", delete_disks="")
    assert (cluster.ceph.volumes, await cluster.ask("GET", "/vm")) == ({}, [])


async def test_without_the_flag_the_volumes_stay(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a")
    await cluster.start("web1")
    await cluster.while_time_passes("DELETE", "/vm/web1")
    assert (cluster.ceph.removed, await cluster.ask("GET", "/vm")) == ([], [])


async def test_volumes_that_others_use_or_it_only_reads_are_kept_and_named(cluster: StorageCluster) -> None:
    cluster.ceph.volumes["isos", "debian"] = []
    await cluster.define("web1", "vms/a", "vms/b")
    await cluster.define("web2", "vms/b")
    await cluster.define("web3", "isos/debian", read_only=True)
    reply = await cluster.while_time_passes("DELETE", "/vm/web1", delete_disks="")
    assert reply["warnings"] == ["Volume 'vms/b' kept: in use by VM 'web2'."]
    reply = await cluster.while_time_passes("DELETE", "/vm/web3", delete_disks="")
    assert reply["warnings"] == ["Volume 'isos/debian' kept: VM 'web3' used it read-only."]
    assert cluster.ceph.removed == ["vms/a"]


async def test_a_failure_names_the_volumes_and_the_request_can_be_repeated(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a", "vms/b")
    await cluster.start("web1")
    cluster.ceph.failure = Failed("Ceph does not answer.", code="ceph-unavailable")
    reply = await cluster.while_time_passes("DELETE", "/vm/web1", 510, delete_disks="")
    assert reply["code"] == "volumes-not-removed"
    assert reply["message"] == (
        "Cannot remove VM 'web1' with its volumes: 'vms/a': Ceph does not answer. 'vms/b': Ceph does not answer. "
        "Nothing was changed."
    )
    assert await cluster.ask("GET", "/vm/web1/state") == {"name": "web1", "state": "start", "running": True}
    cluster.ceph.failure = None
    await cluster.while_time_passes("DELETE", "/vm/web1", delete_disks="")
    assert (cluster.ceph.volumes, await cluster.ask("GET", "/vm")) == ({}, [])


async def test_no_volume_is_removed_while_one_cannot_be(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a", "vms/b")
    await cluster.start("web1")
    cluster.ceph.with_snapshots = {("vms", "a")}
    reply = await cluster.while_time_passes("DELETE", "/vm/web1", 510, delete_disks="")
    assert reply["code"] == "volumes-not-removed"
    assert reply["message"] == (
        "Cannot remove VM 'web1' with its volumes: 'vms/a': it has snapshots. Remove them first. Nothing was changed."
    )
    assert cluster.ceph.removed == []
    assert await cluster.ask("GET", "/vm/web1/state") == {"name": "web1", "state": "start", "running": True}


async def test_a_volume_that_cannot_be_removed_once_the_vm_is_off_keeps_the_others(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a", "vms/b")
    await cluster.start("web1")
    cluster.ceph.in_use_until = cluster.simulated.clock.time() + 20
    asking = asyncio.ensure_future(cluster.while_time_passes("DELETE", "/vm/web1", 510, delete_disks=""))
    store = cluster.simulated.api.store
    assert await store.wait_for(lambda: any(vm.delete_disks for vm in store.all(VM)), 15)
    cluster.ceph.with_snapshots = {("vms", "a")}
    reply = await asking
    assert reply["message"] == (
        "Cannot remove all volumes of VM 'web1': 'vms/a': it has snapshots. Remove them first. "
        "The VM remains, stopped. Repeat the request."
    )
    assert cluster.ceph.removed == []
    assert await cluster.ask("GET", "/vm/web1/state") == {"name": "web1", "state": "stop", "running": False}


async def test_removal_waits_for_a_client_that_ceph_still_lists(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a")
    cluster.ceph.in_use_until = cluster.simulated.clock.time() + 30
    await cluster.while_time_passes("DELETE", "/vm/web1", delete_disks="")
    assert cluster.ceph.removed == ["vms/a"]


async def test_a_volume_whose_client_stays_is_named(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a")
    cluster.ceph.in_use_until = cluster.simulated.clock.time() + 1000
    reply = await cluster.while_time_passes("DELETE", "/vm/web1", 510, delete_disks="")
    assert "'vms/a': a client has it open." in reply["message"]


async def test_nothing_is_removed_while_the_node_cannot_report_that_the_vm_is_off(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a")
    await cluster.start("web1")
    await cluster.simulated.kill_agent("hv1")
    reply = await cluster.while_time_passes("DELETE", "/vm/web1", 510, delete_disks="")
    assert (reply["code"], cluster.ceph.removed) == ("node-not-running", [])
    assert await cluster.ask("GET", "/vm/web1/state") == {"name": "web1", "state": "start", "running": True}


async def test_the_volumes_stay_if_the_node_does_not_report_in_time(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a")
    await cluster.start("web1")
    cluster.hypervisors["hv1"].stop()
    reply = await cluster.while_time_passes("DELETE", "/vm/web1", 510, delete_disks="")
    assert (reply["code"], cluster.ceph.removed) == ("timed-out", [])
    cluster.hypervisors["hv1"].start_again()
    await cluster.simulated.advance(90)
    assert (await cluster.ask("GET", "/vm/web1/state"))["running"] is False  # the VM is still defined
    await cluster.while_time_passes("DELETE", "/vm/web1", delete_disks="")
    assert (cluster.ceph.removed, await cluster.ask("GET", "/vm")) == (["vms/a"], [])


async def test_a_vm_cannot_be_started_while_its_volumes_are_removed(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a")
    cluster.ceph.in_use_until = cluster.simulated.clock.time() + 10
    asking = asyncio.ensure_future(cluster.while_time_passes("DELETE", "/vm/web1", delete_disks=""))
    store = cluster.simulated.api.store
    assert await store.wait_for(lambda: any(vm.delete_disks for vm in store.all(VM)), 5)
    reply = await cluster.simulated.request("POST", "/api/v1/vm/web1/state", state="start")
    assert reply.json["code"] == "vm-busy"
    await asking


async def test_an_interrupted_removal_is_finished_by_the_next_request(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a")
    await cluster.start("web1")
    cluster.ceph.in_use_until = cluster.simulated.clock.time() + 10
    asking = asyncio.ensure_future(cluster.simulated.request("DELETE", "/api/v1/vm/web1", delete_disks=""))
    await cluster.simulated.advance(5)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await cluster.simulated.advance(60)
    assert (await cluster.ask("GET", "/vm/web1/state"))["state"] == "delete"
    await cluster.while_time_passes("DELETE", "/vm/web1", delete_disks="")
    assert (cluster.ceph.volumes.keys(), await cluster.ask("GET", "/vm")) == ({("vms", "b")}, [])


async def test_locks_are_listed_and_cleared_once_the_vm_is_off(cluster: StorageCluster) -> None:
    cluster.ceph.volumes["vms", "a"] = [LOCK]
    await cluster.define("web1", "vms/a", "vms/none")
    listed = [{"pool": "vms", "volume": "a", "id": "auto 1", "locker": "client.4123", "address": "10.0.0.9:0/1"}]
    await cluster.start("web1")
    assert await cluster.while_time_passes("GET", "/vm/web1/locks") == listed
    reply = await cluster.while_time_passes("POST", "/vm/web1/locks", 510)
    assert reply["code"] == "vm-not-stopped"
    assert await cluster.while_time_passes("GET", "/vm/web1/locks") == listed
    await cluster.stop("web1")
    reply = await cluster.while_time_passes("POST", "/vm/web1/locks")
    assert reply == {"message": "1 lock of VM 'web1' broken."}
    assert await cluster.while_time_passes("GET", "/vm/web1/locks") == []


async def test_locks_stay_while_the_node_has_not_reported_that_the_vm_is_off(cluster: StorageCluster) -> None:
    cluster.ceph.volumes["vms", "a"] = [LOCK]
    await cluster.define("web1", "vms/a")
    await cluster.start("web1")
    cluster.hypervisors["hv1"].stop()
    await cluster.ask("POST", "/vm/web1/state", state="stop")
    assert (await cluster.while_time_passes("POST", "/vm/web1/locks", 510))["code"] == "vm-not-stopped"
    assert cluster.ceph.volumes["vms", "a"] == [LOCK]


async def test_locks_that_another_vm_may_hold_stay(cluster: StorageCluster) -> None:
    cluster.ceph.volumes["vms", "a"] = [LOCK]
    await cluster.define("web1", "vms/a")
    await cluster.define("web2", "vms/a")
    await cluster.start("web2")
    reply = await cluster.while_time_passes("POST", "/vm/web1/locks", 510)
    assert reply["message"] == (
        "Cannot break the locks of volume 'vms/a': in use by VM 'web2', which is not known to be off. "
        "Stop VM 'web2' first."
    )
    assert cluster.ceph.volumes["vms", "a"] == [LOCK]


async def test_a_vm_without_volumes_has_no_locks_and_is_removed_as_usual(cluster: StorageCluster) -> None:
    await cluster.ask("POST", "/vm", xml=with_disks("web1"))
    assert await cluster.ask("GET", "/vm/web1/locks") == []
    reply = await cluster.while_time_passes("DELETE", "/vm/web1", delete_disks="")
    assert reply == {"message": "VM 'web1' removed."}
