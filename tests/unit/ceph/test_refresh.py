"""The mirror: the records show the last known state of Ceph, and a refresh blocks nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any

import pytest

from pvcd.store import memory
from pvcd.testing import SimulatedCluster
from pvcd_plugins.ceph.cluster import LEFTOVER, CephError, ListedVolume
from pvcd_plugins.ceph.components import CLUSTER, open_cluster
from pvcd_plugins.ceph.records import CephStatus, Osd, Pool, Snapshot, Volume
from pvcd_plugins.ceph.refresh import BATCH, REMAINS_SECONDS
from tests.unit.ceph.conftest import REFRESH, Storage


def names(storage: Storage) -> list[str]:
    return [f"{each.pool}/{each.name}" for each in storage.context.store.all(Volume)]


async def test_the_first_refresh_records_everything(storage: Storage) -> None:
    await storage.ceph.create_volume("vms", "web1", 1 << 30)
    await storage.ceph.create_snapshot("vms", "web1", "before")
    await storage.refresh()
    store = storage.context.store
    assert [osd.id for osd in store.all(Osd)] == [0, 1, 2]
    assert [pool.name for pool in store.all(Pool)] == ["vms"]
    volume = store.get(Volume, "vms", "web1")
    assert volume and volume.inspected and volume.facts and volume.facts.object_size
    snapshot = store.get(Snapshot, "vms", "web1", "before")
    assert snapshot and snapshot.facts and snapshot.facts.size == 1 << 30
    status = store.get(CephStatus)
    assert status and status.status and status.status.osds == 3 and status.failed_reason is None


async def test_an_unchanged_record_is_not_written(storage: Storage) -> None:
    await storage.ceph.create_volume("vms", "web1", 1 << 30)
    await storage.ceph.create_snapshot("vms", "web1", "before")
    await storage.refresh()
    store = storage.context.store
    kinds = (Osd, Pool, Volume, Snapshot)
    before = [(each.path, each.serial) for kind in kinds for each in store.all(kind)]
    await storage.refresh()
    assert [(each.path, each.serial) for kind in kinds for each in store.all(kind)] == before
    status = store.get(CephStatus)
    assert status and status.updated and status.updated > storage.cluster.clock.time() - REFRESH - 1


async def test_unchanged_volumes_are_not_inspected(storage: Storage) -> None:
    await storage.ceph.create_volume("vms", "web1", 1 << 30)
    await storage.refresh()
    storage.door.calls.clear()
    await storage.refresh()
    assert "volumes" in storage.door.calls
    assert "volume" not in storage.door.calls and "snapshots" not in storage.door.calls


async def test_changes_made_by_others_are_recorded(storage: Storage) -> None:
    for name in ("one", "two"):
        await storage.ceph.create_volume("vms", name, 1 << 30)
    await storage.refresh()
    assert names(storage) == ["vms/one", "vms/two"]
    await storage.ceph.remove_volume("vms", "one")
    await storage.ceph.resize_volume("vms", "two", 2 << 30)
    await storage.ceph.create_snapshot("vms", "two", "now")
    await storage.ceph.create_volume("vms", "three", 1 << 30)
    await storage.refresh()
    assert names(storage) == ["vms/three", "vms/two"]
    two = storage.context.store.get(Volume, "vms", "two")
    assert two and two.inspected and two.facts
    assert (two.size, two.facts.size, two.facts.snapshot_count) == (2 << 30, 2 << 30, 1)
    await storage.ceph.remove_snapshot("vms", "two", "now")
    await storage.refresh()
    two = storage.context.store.get(Volume, "vms", "two")
    assert two and two.facts and two.facts.snapshot_count == 0
    assert storage.context.store.all(Snapshot) == []


async def test_a_removed_pool_takes_its_volumes_and_snapshots_along(storage: Storage) -> None:
    await storage.ceph.create_volume("vms", "one", 1 << 30)
    await storage.ceph.create_snapshot("vms", "one", "now")
    await storage.refresh()
    await storage.ceph.remove_pool("vms")
    await storage.refresh()
    store = storage.context.store
    assert (store.all(Pool), store.all(Volume), store.all(Snapshot)) == ([], [], [])


async def test_incomplete_pools_are_shown_and_those_of_other_applications_are_not(storage: Storage) -> None:
    pools = await storage.ceph.pools()
    theirs = dataclasses.replace(pools[0], name="cephfs_data", applications=("cephfs",))
    unfinished = dataclasses.replace(pools[0], name="half", applications=())
    storage.door.answers["pools"] = [theirs, unfinished, *pools]
    await storage.refresh()
    assert [pool.name for pool in storage.context.store.all(Pool)] == ["half", "vms"]
    reply = await storage.ask("DELETE", "/pool/cephfs_data?yes_i_really_mean_it")
    assert reply.json["code"] == "pool-not-found"


async def test_the_snapshot_of_a_copy_in_progress_is_not_shown(storage: Storage) -> None:
    await storage.ceph.create_volume("vms", "one", 1 << 30)
    (listed,) = await storage.ceph.volumes("vms")
    storage.door.answers["volumes"] = [dataclasses.replace(listed, snapshots=(f"{LEFTOVER}12ab", "real"))]
    await storage.refresh()
    assert [each.snapshot for each in storage.context.store.all(Snapshot)] in (["real"], [])


async def test_records_stay_while_ceph_is_away_and_the_status_says_why(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    await storage.ceph.create_volume("vms", "one", 1 << 30)
    await storage.refresh()
    storage.door.away = True
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            await storage.refresh()
    assert [record.message for record in caplog.records] == ["Ceph did not answer within 30 s."]
    assert names(storage) == ["vms/one"]
    status = await storage.get("/status")
    assert status["failed_reason"] == "Ceph did not answer within 30 s."
    assert status["updated"] < storage.cluster.clock.time() - 4 * REFRESH
    storage.door.away = False
    await storage.refresh()
    status = await storage.get("/status")
    assert status["failed_reason"] is None
    assert status["updated"] >= storage.cluster.clock.time() - REFRESH


async def test_a_pool_that_cannot_be_listed_says_so_and_hides_no_others(storage: Storage) -> None:
    await storage.ceph.create_volume("vms", "one", 1 << 30)
    await storage.ceph.create_pool("broken", 8, 1, 1)
    await storage.refresh()
    storage.door.failing["volumes"] = lambda pool: CephError("Ceph failed: it is broken.") if pool == "broken" else None
    await storage.ceph.create_volume("vms", "two", 1 << 30)
    await storage.refresh()
    assert names(storage) == ["vms/one", "vms/two"]
    reasons = {pool["name"]: pool["failed_reason"] for pool in await storage.get("/pool")}
    assert reasons == {"broken": "Cannot list the volumes: Ceph failed: it is broken.", "vms": None}
    storage.door.failing.clear()
    await storage.refresh()
    assert {pool["failed_reason"] for pool in await storage.get("/pool")} == {None}


async def test_incomplete_volumes_are_named_and_can_be_removed(storage: Storage) -> None:
    await storage.make("vms", "one")
    incomplete = ListedVolume("vms", "half", id="", size=0, parent=None, locked=False, snapshots=())
    listed = await storage.ceph.volumes("vms")
    storage.door.answers["volumes"] = [incomplete, *listed]
    await storage.refresh()
    (pool,) = await storage.get("/pool")
    assert pool["failed_reason"] == "Incomplete volumes, which are removed after two minutes: half."
    assert [volume["name"] for volume in await storage.get("/volume")] == ["one"]
    storage.door.answers["remove_volume"] = True
    assert (await storage.ask("DELETE", "/volume/vms/half")).status == 200
    storage.door.answers.clear()
    await storage.refresh()
    assert (await storage.get("/pool"))[0]["failed_reason"] is None


async def test_volumes_that_stay_incomplete_are_removed(storage: Storage) -> None:
    half = ListedVolume("vms", "half", id="", size=0, parent=None, locked=False, snapshots=())
    storage.door.answers["volumes"] = [half]
    await storage.refresh()
    storage.door.answers["volumes"] = []
    await storage.refresh()  # it was completed or removed
    storage.door.answers["volumes"] = [half]
    for _ in range(1 + int(REMAINS_SECONDS / REFRESH)):
        assert "discard_volume" not in storage.door.calls
        await storage.refresh()
    assert "discard_volume" in storage.door.calls


async def test_the_snapshot_of_an_interrupted_copy_is_removed(storage: Storage) -> None:
    await storage.ceph.create_volume("vms", "one", 1 << 30)
    await storage.ceph.create_snapshot("vms", "one", "mine")
    (listed,) = await storage.ceph.volumes("vms")
    storage.door.answers["volumes"] = [dataclasses.replace(listed, snapshots=(f"{LEFTOVER}12ab", "mine"))]
    storage.door.answers["remove_snapshot"] = lambda *names: removed.append(names) or True
    removed: list[tuple[str, ...]] = []
    for _ in range(2 + int(REMAINS_SECONDS / REFRESH)):
        await storage.refresh()
    assert set(removed) == {("vms", "one", f"{LEFTOVER}12ab")}


async def test_a_volume_that_cannot_be_inspected_does_not_keep_others_from_it(storage: Storage) -> None:
    for name in ("bad", "good"):
        await storage.ceph.create_volume("vms", name, 1 << 30)
    storage.door.failing["volume"] = lambda pool, name: CephError("It is broken.") if name == "bad" else None
    await storage.refresh()
    looked = {each.name: each.inspected for each in storage.context.store.all(Volume)}
    assert looked == {"bad": False, "good": True}
    (bad,) = await storage.get("/volume/vms/bad")
    assert (bad["stats"]["size"], bad["stats"]["objects"]) == ("1024M", None)


async def test_a_refresh_that_began_before_a_command_does_not_undo_it(storage: Storage) -> None:
    for name in ("gone", "kept"):
        await storage.ceph.create_volume("vms", name, 1 << 30)
    await storage.refresh()
    held = storage.door.hold_answer("volumes")
    await storage.cluster.advance(REFRESH)
    assert held.waiting
    assert (await storage.ask("DELETE", "/volume/vms/gone")).status == 200
    assert (await storage.ask("POST", "/volume", pool="vms", volume="new", size="1G")).status == 200
    assert names(storage) == ["vms/kept", "vms/new"]
    held.release()
    await storage.cluster.advance(0.1)
    assert names(storage) == ["vms/kept", "vms/new"]
    await storage.refresh()
    assert names(storage) == ["vms/kept", "vms/new"]


async def test_a_removed_volume_that_was_never_recorded_does_not_come_back(storage: Storage) -> None:
    await storage.ceph.create_volume("vms", "one", 1 << 30)
    held = storage.door.hold_answer("volumes")
    await storage.cluster.advance(REFRESH)
    assert held.waiting
    assert (await storage.ask("DELETE", "/volume/vms/one")).status == 200
    held.release()
    await storage.cluster.advance(0.1)
    assert names(storage) == []


async def test_thousands_of_volumes_are_written_in_small_transactions(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 3 * BATCH + 7
    for number in range(count):
        await storage.ceph.create_volume("vms", f"volume{number:04}", 1 << 20)
    sizes: list[int] = []
    commit = memory.MemoryTree.commit

    async def counting(tree: memory.MemoryTree, changes: list[object]) -> object:
        sizes.append(len(changes))
        return await commit(tree, changes)  # type: ignore[arg-type]

    monkeypatch.setattr(memory.MemoryTree, "commit", counting)
    await storage.refresh()
    assert len(names(storage)) == count
    assert max(sizes) <= BATCH + 1
    for _ in range(5):
        await storage.refresh()
    assert all(each.inspected for each in storage.context.store.all(Volume))


async def test_a_ceph_that_hangs_blocks_nothing_else(storage: Storage) -> None:
    held = storage.door.hold_answer("status")
    await storage.cluster.advance(REFRESH)
    assert held.waiting
    begun = storage.cluster.clock.time()
    await storage.cluster.advance(30)
    reply = await storage.cluster.request("GET", "/api/v1/node/hv1")
    assert reply.json[0]["daemon_state"] == "run"
    report = storage.report("hv1")
    assert report.updated >= begun + 29
    assert (await storage.ask("POST", "/volume", pool="vms", volume="new", size="1G")).status == 200
    held.release()


async def test_the_next_primary_continues(storage: Storage) -> None:
    await storage.refresh()
    await storage.cluster.kill_agent("hv1")
    await storage.cluster.advance(1)
    await storage.ceph.create_volume("vms", "new", 1 << 30)
    await storage.refresh()
    assert names(storage) == ["vms/new"]
    assert (await storage.get("/status"))["primary_node"] == "hv2"


async def test_a_node_without_ceph_logs_once_and_refuses_requests(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        real: Any = {CLUSTER: open_cluster}
        async with SimulatedCluster(["hv1"], [], real, ["vm"], ceph={"conf": "/nowhere/ceph.conf"}) as cluster:
            await cluster.advance(100)
            for path in ("osd", "pool", "volume", "volume/snapshot"):
                reply = await cluster.request("GET", f"/api/v1/storage/ceph/{path}")
                assert (reply.status, reply.json) == (200, [])
            reply = await cluster.request("GET", "/api/v1/storage/ceph/status")
            expected = {
                "message": "Cannot reach Ceph: this node has no file /nowhere/ceph.conf.",
                "code": "ceph-unavailable",
            }
            assert (reply.status, reply.json) == (510, expected)
            asking = asyncio.ensure_future(
                cluster.request("POST", "/api/v1/storage/ceph/volume", pool="vms", volume="one", size="1G")
            )
            await cluster.advance(1)
            assert (await asking).json == expected
    assert len(caplog.records) == 1
