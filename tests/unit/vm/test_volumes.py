"""No two guests write to one volume, and no volume is taken away from a VM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pvcd import Conflict, Context, Create, Operation
from pvcd_plugins.ceph.records import Volume
from pvcd_plugins.vm.indexes import VOLUME_INDEX, VolumeIndex
from pvcd_plugins.vm.records import VM, VolumeClaim
from pvcd_plugins.vm.volumes import GUARDED, protect, write_with_volume_claims
from tests.unit.vm.conftest import uuid_of
from tests.unit.vm.storage import StorageCluster, with_disks


@pytest.fixture
async def cluster() -> AsyncIterator[StorageCluster]:
    made = StorageCluster("hv1", "hv2")
    async with made.simulated:
        await made.simulated.advance(2)
        yield made


async def started(cluster: StorageCluster, name: str) -> bool:
    state: dict[str, Any] = await cluster.ask("GET", f"/vm/{name}/state")
    return state == {"name": name, "state": "start", "running": True}


async def test_a_second_vm_on_a_volume_is_not_started_and_the_first_is_named(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a", "vms/b")
    await cluster.define("web2", "vms/b")
    await cluster.start("web1")
    reply = await cluster.start("web2", 510)
    assert reply["code"] == "volume-in-use"
    assert reply["message"] == (
        "Cannot run VM 'web2': volume 'vms/b' is in use by VM 'web1', which is not known to be off. "
        "Stop VM 'web1' first."
    )
    assert await started(cluster, "web1")
    await cluster.stop("web1")
    await cluster.start("web2")
    assert await started(cluster, "web2")
    await cluster.start("web1", 510)


async def test_a_vm_starts_again_on_its_own_volumes(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a")
    for _ in range(2):
        await cluster.start("web1")
        await cluster.ask("POST", "/vm/web1/state", state="restart")
        await cluster.simulated.advance(5)
        assert await started(cluster, "web1")
        await cluster.stop("web1")


async def test_only_one_of_many_simultaneous_starts_succeeds(cluster: StorageCluster) -> None:
    names = [f"web{number}" for number in range(8)]
    for name in names:
        await cluster.define(name, "vms/a")
    path = "/api/v1/vm/{}/state"
    asking = [cluster.simulated.request("POST", path.format(name), state="start") for name in names]
    replies = asyncio.ensure_future(asyncio.gather(*asking))
    while not replies.done():
        await cluster.simulated.advance(0.1)
    assert sorted(reply.status for reply in await replies) == [200] + [510] * 7
    await cluster.simulated.advance(1)
    assert sum([await started(cluster, name) for name in names]) == 1


async def test_two_vms_that_do_not_see_each_other_do_not_both_start(cluster: StorageCluster) -> None:
    """Each write includes the claim, even if the index of a process lags behind."""
    await cluster.define("web1", "vms/a")
    await cluster.define("web2", "vms/a")
    context = cluster.simulated.api
    vms = [context.store.get(VM, uuid_of(name)) for name in ("web1", "web2")]
    blind = VolumeIndex()  # without any VM
    unaware = context.derive(components={**context.components, VOLUME_INDEX: blind})

    async def start(vm: VM | None) -> None:
        assert vm is not None
        await write_with_volume_claims(unaware, vm.changed(state="start", generation=vm.generation + 1))

    results = await asyncio.gather(*map(start, vms), return_exceptions=True)
    assert [type(result) for result in results].count(type(None)) == 1
    assert all(result is None or isinstance(result, Conflict) for result in results)


async def test_readers_of_a_volume_run_together_but_not_beside_a_writer(
    cluster: StorageCluster,
) -> None:
    for name in ("web1", "web2"):
        await cluster.define(name, "isos/debian", read_only=True)
        await cluster.start(name)
        assert await started(cluster, name)
    await cluster.define("web3", "isos/debian")
    await cluster.start("web3", 510)
    await cluster.stop("web1")
    await cluster.start("web3", 510)
    await cluster.stop("web2")
    await cluster.start("web3")
    assert (await cluster.start("web1", 510))["code"] == "volume-in-use"


async def test_a_start_fails_if_another_vm_changes_before_it_is_written(
    cluster: StorageCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.define("web1", "vms/a", read_only=True)
    await cluster.define("web2", "vms/a")
    store = cluster.simulated.api.store
    write, overtaken = store.write, []

    async def late(*changes: Any) -> None:
        if not overtaken and any(change.record.path == VM.at(uuid_of("web2")) for change in changes):
            overtaken.append(True)
            await cluster.ask("POST", "/vm/web1/state", state="start")
        await write(*changes)

    monkeypatch.setattr(store, "write", late)
    assert (await cluster.start("web2", 510))["code"] == "volume-in-use"
    assert overtaken and await started(cluster, "web1")


async def test_a_vm_that_runs_is_not_given_a_volume_of_another(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a")
    await cluster.define("web2", "vms/b")
    await cluster.start("web1")
    await cluster.start("web2")
    for more in ({}, {"restart": ""}):
        reply = await cluster.ask("PUT", "/vm/web2", 510, xml=with_disks("web2", "vms/a"), **more)
        assert reply["code"] == "volume-in-use"
    await cluster.stop("web2")
    await cluster.ask("PUT", "/vm/web2", xml=with_disks("web2", "vms/a"))
    await cluster.start("web2", 510)


async def test_a_guest_keeps_its_volumes_until_it_is_started_again(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a")
    await cluster.define("web2", "vms/a")
    await cluster.start("web1")
    await cluster.ask("PUT", "/vm/web1", xml=with_disks("web1", "vms/b"))
    assert (await cluster.start("web2", 510))["code"] == "volume-in-use"
    await cluster.ask("POST", "/vm/web1/state", state="restart")
    await cluster.simulated.advance(5)
    assert await started(cluster, "web1")
    await cluster.start("web2")
    assert await started(cluster, "web2")


async def test_a_node_that_becomes_ready_starts_only_vms_whose_volumes_are_free(cluster: StorageCluster) -> None:
    for name, volume in (("web1", "vms/a"), ("web2", "vms/b")):
        await cluster.define(name, volume, node="hv1", limit="hv1")
        await cluster.start(name)
    await cluster.ask("POST", "/node/hv1/domain-state", **{"domain-state": "flush"})
    await cluster.simulated.advance(10)
    await cluster.define("web3", "vms/a", node="hv2", limit="hv2")
    await cluster.start("web3")
    await cluster.ask("POST", "/node/hv1/domain-state", **{"domain-state": "ready"})
    await cluster.simulated.advance(10)
    assert (await cluster.ask("GET", "/node/hv1/domain-state"))["domain_state"] == "ready"
    assert [await started(cluster, name) for name in ("web1", "web2", "web3")] == [False, True, True]


async def test_a_node_that_died_keeps_its_volumes(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a", node="hv2", limit="hv2")
    await cluster.define("web2", "vms/a", node="hv1", limit="hv1")
    await cluster.start("web1")
    await cluster.simulated.kill_agent("hv2")
    await cluster.ask("POST", "/vm/web1/state", state="stop")
    assert (await cluster.start("web2", 510))["code"] == "volume-in-use"


async def test_claims_go_with_their_vm(cluster: StorageCluster) -> None:
    await cluster.define("web1", "vms/a", "vms/b")
    await cluster.start("web1")
    store = cluster.simulated.api.store
    assert [claim.path for claim in store.all(VolumeClaim)] == ["/vm-volumes/vms/a", "/vm-volumes/vms/b"]
    await cluster.while_time_passes("DELETE", "/vm/web1")
    assert store.all(VolumeClaim) == []


@pytest.mark.parametrize(
    "name", ["a", "../x/y", "vms/a/b", "vms/a@b", "vms/a b", "vms/-p", "vms/", "vms/a:conf=/etc/x"]
)
async def test_a_disk_source_that_does_not_name_a_volume_is_refused(cluster: StorageCluster, name: str) -> None:
    reply = await cluster.define("web1", name, status=510)
    assert reply["code"] == "invalid-value"
    assert "must be pool/volume" in reply["message"]


# The guard of volumes


REMOVE = "Remove the VM, or the disk from its definition, first."


async def guarded(context: Context, operation: str, **arguments: Any) -> str | None:
    """Return why an operation is refused, or None."""
    try:
        await protect(context, Operation(operation, {"pool": "vms", "volume": "a"} | arguments))
    except Conflict as error:
        assert error.code == "volume-in-use"
        return error.sentence
    return None


async def test_a_volume_that_a_vm_names_is_neither_removed_nor_renamed_nor_shrunk(cluster: StorageCluster) -> None:
    context = cluster.simulated.api
    await context.store.write(Create(Volume(pool="vms", name="a", id="1", size=1000, updated=0.0)))
    await cluster.define("web1", "vms/a")
    assert await guarded(context, "ceph-volume-remove") == (
        f"Cannot remove volume 'vms/a': in use by VM 'web1'. {REMOVE}"
    )
    assert await guarded(context, "ceph-volume-rename", new="b") == (
        f"Cannot rename volume 'vms/a': in use by VM 'web1'. {REMOVE}"
    )
    smaller = await guarded(context, "ceph-volume-resize", size=999, shrink=True)
    assert smaller == f"Cannot shrink volume 'vms/a': in use by VM 'web1'. {REMOVE}"
    assert await guarded(context, "ceph-volume-resize", size=1000, shrink=False) is None
    assert await guarded(context, "ceph-pool-remove", volume=None) == (
        f"Cannot remove pool 'vms': volume 'vms/a' is in use by VM 'web1'. {REMOVE}"
    )
    assert await guarded(context, "ceph-pool-remove", pool="other") is None
    for operation in GUARDED:
        assert await guarded(context, operation, pool="other", volume="a", size=1, shrink=True) is None


async def test_a_volume_is_rolled_back_while_its_vm_is_off(cluster: StorageCluster) -> None:
    context = cluster.simulated.api
    await cluster.define("web1", "vms/a")
    assert await guarded(context, "ceph-snapshot-rollback", snapshot="s") is None
    await cluster.start("web1")
    assert await guarded(context, "ceph-snapshot-rollback", snapshot="s") == (
        "Cannot roll back volume 'vms/a': in use by VM 'web1'. Stop the VM first."
    )
    await cluster.stop("web1")
    assert await guarded(context, "ceph-snapshot-rollback", snapshot="s") is None


async def test_a_volume_that_a_guest_still_has_open_is_guarded_although_its_vm_names_it_no_more(
    cluster: StorageCluster,
) -> None:
    context = cluster.simulated.api
    await cluster.define("web1", "vms/a")
    await cluster.start("web1")
    await cluster.ask("PUT", "/vm/web1", xml=with_disks("web1", "vms/b"))
    for operation in ("ceph-volume-remove", "ceph-snapshot-rollback"):
        assert await guarded(context, operation) is not None
    await cluster.stop("web1")
    for operation in ("ceph-volume-remove", "ceph-snapshot-rollback"):
        assert await guarded(context, operation) is None


def test_the_users_of_a_volume_follow_the_store() -> None:
    users = VolumeIndex()

    def vm(name: str, *volumes: str, read_only: bool = False) -> VM:
        return VM(uuid=uuid_of(name), name=name, node="hv1", xml=with_disks(name, *volumes, read_only=read_only))

    one, two, iso = vm("one", "vms/a", "vms/b"), vm("one", "vms/b"), vm("two", "vms/b", read_only=True)
    users.changed(one.path, None, one)
    users.changed(iso.path, None, iso)
    assert users.of("vms", "b") == {one.uuid: True, iso.uuid: False}
    users.changed(one.path, one, two)
    assert (users.of("vms", "a"), users.in_pool("vms")) == ({}, [("vms", "b")])
    users.changed(two.path, two, None)
    users.changed(iso.path, iso, None)
    assert users.in_pool("vms") == []
