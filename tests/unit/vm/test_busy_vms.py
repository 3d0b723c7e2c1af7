"""A VM that is being built or removed takes no changes, and the volumes of a task are its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from pvcd import Conflict, Context, Create, Operation, Put, Task
from pvcd_plugins.ceph.records import Volume
from pvcd_plugins.vm import service
from pvcd_plugins.vm.records import VM, State, VolumeClaim
from pvcd_plugins.vm.volumes import protect
from tests.unit.vm.conftest import uuid_of
from tests.unit.vm.storage import StorageCluster, with_disks

TASK = UUID(int=7)
CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/vm/web1", {"autostart": ""}),
    ("PUT", "/vm/web1", {"xml": with_disks("web1")}),
    ("POST", "/vm/web1/state", {"state": "start"}),
    ("POST", "/vm/web1/node", {"action": "migrate", "node": "hv2"}),
    ("POST", "/vm/web1/locks", {}),
]


@pytest.fixture
async def cluster() -> AsyncIterator[StorageCluster]:
    made = StorageCluster("hv1", "hv2")
    async with made.simulated:
        await made.simulated.advance(2)
        yield made


async def build(cluster: StorageCluster, name: str = "web1", *volumes: str) -> VM:
    """Reserve a VM as the task does that builds it."""
    task = Task(id=TASK, kind="provision", subject=name, state="running", created=0)
    context = cluster.simulated.api
    await context.store.write(Create(task))
    xml = with_disks(name, *volumes)
    return await service.reserve(context, xml, task=TASK, node_limit=(), selector=None, autostart=False, profile="web")


async def end_task(cluster: StorageCluster) -> None:
    store = cluster.simulated.api.store
    await store.write(Put(store.all(Task)[0].changed(state="failure")))


@pytest.mark.parametrize(("method", "path", "values"), CHANGES)
async def test_no_change_of_a_vm_that_is_being_removed_is_acknowledged(
    cluster: StorageCluster, method: str, path: str, values: dict[str, Any]
) -> None:
    await cluster.define("web1")
    store = cluster.simulated.api.store
    await store.write(Put(store.all(VM)[0].changed(state=State.DELETE, delete_disks=True)))
    reply = await cluster.ask(method, path, 510, **values)
    assert reply["code"] == "vm-busy"
    assert reply["message"] == (
        "Cannot change VM 'web1': it is in state 'delete'. Repeat the request when that is over."
    )


@pytest.mark.parametrize(("method", "path", "values"), [*CHANGES, ("DELETE", "/vm/web1", {})])
async def test_no_change_of_a_vm_that_is_being_built_is_acknowledged(
    cluster: StorageCluster, method: str, path: str, values: dict[str, Any]
) -> None:
    await build(cluster)
    reply = await cluster.ask(method, path, 510, **values)
    assert reply["code"] == "vm-busy"
    verb = "remove" if method == "DELETE" else "change"
    assert reply["message"] == (
        f"Cannot {verb} VM 'web1': task {TASK} builds it. Wait for its end, or cancel the task first."
    )


async def test_a_change_that_overtakes_the_removal_is_refused(
    cluster: StorageCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.define("web1")
    store = cluster.simulated.api.store
    write, overtaken = store.write, []

    async def late(*changes: Any) -> None:
        if not overtaken:
            overtaken.append(True)
            await write(Put(store.all(VM)[0].changed(state=State.DELETE, delete_disks=True)))
        await write(*changes)

    monkeypatch.setattr(store, "write", late)
    assert (await cluster.ask("POST", "/vm/web1", 510, autostart=""))["code"] == "vm-busy"


async def test_a_vm_whose_task_has_ended_without_it_can_be_removed(cluster: StorageCluster) -> None:
    await build(cluster, "web1", "vms/a")
    await end_task(cluster)
    await cluster.while_time_passes("DELETE", "/vm/web1")
    store = cluster.simulated.api.store
    assert store.all(VM) == store.all(VolumeClaim) == []


async def test_no_other_vm_runs_on_the_volumes_of_a_task(cluster: StorageCluster) -> None:
    await cluster.define("db1", "vms/web1_sda")
    await build(cluster, "web1", "vms/web1_sda")
    reply = await cluster.start("db1", 510)
    assert reply["message"] == (
        f"Cannot run VM 'db1': volume 'vms/web1_sda' is in use by task {TASK}, which builds VM 'web1'. "
        "Cancel the task first, or wait for its end."
    )
    await end_task(cluster)
    await cluster.start("db1")


async def test_no_vm_is_built_on_a_volume_with_which_another_runs(cluster: StorageCluster) -> None:
    await cluster.define("db1", "vms/web1_sda")
    await cluster.start("db1")
    with pytest.raises(Conflict, match=r"Cannot build VM 'web1': volume 'vms/web1_sda' is in use by VM 'db1'"):
        await build(cluster, "web1", "vms/web1_sda")
    assert [vm.name for vm in cluster.simulated.api.store.all(VM)] == ["db1"]


async def test_a_completed_vm_is_one_like_any_other(cluster: StorageCluster) -> None:
    await build(cluster, "web1", "vms/a")
    await service.complete(cluster.simulated.api, uuid_of("web1"), start=True)
    await cluster.simulated.advance(2)
    assert (await cluster.ask("GET", "/vm/web1/state"))["running"] is True
    assert cluster.simulated.api.store.all(VM)[0].task is None


@pytest.mark.parametrize(
    ("operation", "values", "what"),
    [
        ("ceph-volume-remove", {"volume": "a"}, "remove volume 'vms/a': in use"),
        ("ceph-volume-rename", {"volume": "a", "new": "b"}, "rename volume 'vms/a': in use"),
        ("ceph-volume-resize", {"volume": "a", "size": 2000}, "grow volume 'vms/a': in use"),
        ("ceph-volume-resize", {"volume": "a", "size": 10}, "shrink volume 'vms/a': in use"),
        ("ceph-snapshot-rollback", {"volume": "a", "snapshot": "s"}, "roll back volume 'vms/a': in use"),
        ("ceph-pool-remove", {}, "remove pool 'vms': volume 'vms/a' is in use"),
    ],
)
async def test_nothing_is_done_to_the_volumes_of_a_task(
    cluster: StorageCluster, operation: str, values: dict[str, Any], what: str
) -> None:
    context: Context = cluster.simulated.api
    await context.store.write(Create(Volume(pool="vms", name="a", id="1", size=1000, updated=0.0)))
    await build(cluster, "web1", "vms/a")
    with pytest.raises(Conflict) as refusal:
        await protect(context, Operation(operation, {"pool": "vms"} | values))
    assert (refusal.value.code, refusal.value.sentence) == (
        "volume-in-use",
        f"Cannot {what} by task {TASK}, which builds VM 'web1'. Cancel the task first, or wait for its end.",
    )
