"""The contract of the door to Ceph, on the fake and on a real cluster."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from clusters import (  # noqa: F401
    NODE,
    POOL,
    Bench,
    CliBench,
    FakeBench,
    GiB,
    MiB,
    bench_fixture,
    place_fixture,
    real_fixture,
)
from pytest import MonkeyPatch

from pvcd.errors import Invalid, NotFound, PvcdError
from pvcd.programs.runner import run
from pvcd_plugins.ceph.cluster import (
    LEFTOVER,
    AlreadyThere,
    CephError,
    CephRefused,
    CephUnavailable,
    Cluster,
    DeviceRefused,
    HasSnapshots,
    InUse,
    Lock,
    Shrinks,
)
from pvcd_plugins.ceph.cluster.osd import CliOsdHost


async def until(holds: Callable[[], Awaitable[object]], limit: float = 60.0) -> None:
    """Return when a condition holds."""
    async with asyncio.timeout(limit):
        while not await holds():  # noqa: ASYNC110 - a condition of other processes
            await asyncio.sleep(0.2)


async def outcome(work: Awaitable[object]) -> str:
    """The code of the error that something ends with, or `done`."""
    try:
        await work
    except PvcdError as error:
        return error.code
    return "done"


async def test_status_and_utilization_are_text_and_numbers(bench: Bench) -> None:
    async def counted() -> bool:
        return (await bench.cluster.status()).pgs >= 8

    await until(counted)  # which the manager of a new Ceph has not done yet
    status, utilization = await bench.cluster.status(), await bench.cluster.utilization()
    assert f"health: {status.health}" in status.text and "services:" in status.text
    assert status.health == "HEALTH_OK" and status.checks == {}
    assert (status.monitors, status.monitors_in_quorum) == (1, 1)
    assert (status.osds, status.osds_up, status.osds_in) == (1, 1, 1)
    assert sum(status.pgs_by_state.values()) == status.pgs
    assert utilization.text.startswith("POOL_NAME") and POOL in utilization.text
    for each in (status, utilization):
        assert each.total_bytes == 8 * GiB
        assert 0 <= each.used_bytes < each.total_bytes and each.available_bytes > 7 * GiB


async def test_options_are_set_and_unset(bench: Bench) -> None:
    for option in ("noout", "noscrub", "noout"):
        await bench.cluster.set_option(option)
    assert await bench.cluster.options() == {"noout", "noscrub"}
    assert (await bench.cluster.status()).checks.keys() <= {"OSDMAP_FLAGS"}
    for option in ("noscrub", "noout", "noout"):
        await bench.cluster.unset_option(option)
    assert await bench.cluster.options() == frozenset()


async def test_an_unknown_option_is_refused(bench: Bench) -> None:
    for option in ("full", "--help", "", "no out", "noout,noin", "NOOUT"):
        for act in (bench.cluster.set_option, bench.cluster.unset_option):
            with pytest.raises(Invalid, match="option must be one of nobackfill"):
                await act(option)


async def test_the_key_of_a_user_is_known(bench: Bench) -> None:
    assert len(await bench.cluster.auth_key("libvirt")) == 40
    with pytest.raises(NotFound, match="no Ceph user 'nobody'"):
        await bench.cluster.auth_key("nobody")


async def test_the_addresses_of_the_monitors_are_known(bench: Bench) -> None:
    monitors = await bench.cluster.monitors()
    assert len(monitors.fsid) == 36
    (address,) = monitors.addresses
    assert address[0] == "127.0.0.1" and address[1] > 0


async def test_a_pool_is_created_as_requested_and_removed(bench: Bench) -> None:
    await bench.cluster.create_pool("slow.disks-2+x", 4, 2, 1)
    (pool,) = [each for each in await bench.cluster.pools() if each.name == "slow.disks-2+x"]
    assert (pool.pgs, pool.copies, pool.mincopies, pool.applications) == (4, 2, 1, ("rbd",))
    assert pool.used_bytes == pool.num_objects == 0 and pool.used_percent == 0.0
    with pytest.raises(
        AlreadyThere, match=r"Cannot add pool 'slow.disks-2\+x': a pool of this name already exists"
    ) as raised:
        await bench.cluster.create_pool("slow.disks-2+x", 4, 1, 1)
    assert raised.value.code == "pool-exists"
    await bench.cluster.remove_pool("slow.disks-2+x")
    assert [each.name for each in await bench.cluster.pools()] == [POOL]
    with pytest.raises(NotFound, match="no pool"):
        await bench.cluster.remove_pool("slow.disks-2+x")


async def test_a_pool_with_impossible_numbers_is_refused(bench: Bench) -> None:
    for numbers in [(0, 1, 1), (-1, 1, 1), (100_000, 1, 1), (8, 0, 0), (8, 2, 3), (8, 99, 1)]:
        with pytest.raises(Invalid):
            await bench.cluster.create_pool("impossible", *numbers)
    assert [each.name for each in await bench.cluster.pools()] == [POOL]


async def test_one_of_two_concurrent_creations_of_a_pool_succeeds(bench: Bench) -> None:
    makings = [outcome(bench.cluster.create_pool("twice", 4, 1, 1)) for _ in range(2)]
    assert sorted(await asyncio.gather(*makings)) == ["done", "pool-exists"]
    await bench.cluster.remove_pool("twice")


async def test_a_pool_fills_with_written_data(bench: Bench) -> None:
    before = await _pool(bench)
    await bench.cluster.create_volume(POOL, "filling", 8 * MiB)
    await bench.write("filling", b"x" * 8 * MiB)

    async def filled() -> bool:
        now = await _pool(bench)
        return now.used_bytes >= before.used_bytes + 8 * MiB and now.num_objects >= before.num_objects + 2

    await until(filled)
    assert (await _pool(bench)).free_bytes < 8 * GiB
    await bench.cluster.remove_volume(POOL, "filling")


async def _pool(bench: Bench):  # type: ignore[no-untyped-def]
    (pool,) = [each for each in await bench.cluster.pools() if each.name == POOL]
    return pool


async def test_a_volume_is_created_listed_and_removed(bench: Bench) -> None:
    await bench.cluster.create_volume(POOL, "web1_sda", 10 * MiB + 512)
    volume = await bench.cluster.volume(POOL, "web1_sda")
    assert (volume.pool, volume.name, volume.size) == (POOL, "web1_sda", 10 * MiB + 512)
    assert (volume.objects, volume.order, volume.object_size, volume.format) == (3, 22, 4 * MiB, 2)
    assert volume.block_name_prefix == f"rbd_data.{volume.id}" and volume.snapshot_count == 0
    assert {"layering", "exclusive-lock"} <= set(volume.features) and volume.parent is None
    assert time.strptime(volume.create_timestamp, "%a %b %d %H:%M:%S %Y")
    (listed,) = await bench.cluster.volumes(POOL)
    assert (listed.name, listed.id, listed.size) == ("web1_sda", volume.id, volume.size)
    assert not listed.locked and listed.snapshots == () and listed.parent is None
    await bench.cluster.remove_volume(POOL, "web1_sda")
    assert await bench.cluster.volumes(POOL) == []


async def test_an_existing_volume_is_not_created_again(bench: Bench) -> None:
    await bench.cluster.create_volume(POOL, "one", 4 * MiB)
    await bench.write("one", b"precious")
    with pytest.raises(
        AlreadyThere, match=f"Cannot add volume '{POOL}/one': a volume of this name already exists"
    ) as raised:
        await bench.cluster.create_volume(POOL, "one", 8 * MiB)
    assert raised.value.code == "volume-exists"
    assert (await bench.read("one"))[:8] == b"precious"
    await bench.cluster.remove_volume(POOL, "one")


async def test_one_of_two_concurrent_creations_of_a_volume_succeeds(bench: Bench) -> None:
    makings = [outcome(bench.cluster.create_volume(POOL, "twice", 4 * MiB)) for _ in range(3)]
    assert sorted(await asyncio.gather(*makings)) == ["done", "volume-exists", "volume-exists"]
    await bench.cluster.remove_volume(POOL, "twice")


async def test_either_a_rename_or_a_concurrent_removal_succeeds(bench: Bench) -> None:
    for _ in range(3):
        await bench.cluster.create_volume(POOL, "old", 4 * MiB)
        renaming = outcome(bench.cluster.rename_volume(POOL, "old", "new"))
        removal = outcome(bench.cluster.remove_volume(POOL, "old"))
        codes = await asyncio.gather(renaming, removal)
        left = [volume.name for volume in await bench.cluster.volumes(POOL)]
        assert "done" in codes
        assert left == (["new"] if codes[1] != "done" else []), codes
        for name in left:
            await bench.cluster.remove_volume(POOL, name)


async def test_an_impossible_volume_size_is_refused(bench: Bench) -> None:
    for size in (0, -1, 2**60):
        with pytest.raises(Invalid, match="size must be from 1 to"):
            await bench.cluster.create_volume(POOL, "odd", size)
    assert await bench.cluster.volumes(POOL) == []


async def test_missing_objects_are_named(bench: Bench) -> None:
    cluster = bench.cluster
    for work, code in (
        (cluster.volumes("none"), "pool-not-found"),
        (cluster.volume("none", "x"), "pool-not-found"),
        (cluster.create_volume("none", "x", MiB), "pool-not-found"),
        (cluster.volume(POOL, "x"), "volume-not-found"),
        (cluster.clone_volume(POOL, "x", "y"), "volume-not-found"),
        (cluster.flatten_volume(POOL, "x"), "volume-not-found"),
        (cluster.resize_volume(POOL, "x", MiB), "volume-not-found"),
        (cluster.rename_volume(POOL, "x", "y"), "volume-not-found"),
        (cluster.remove_volume(POOL, "x"), "volume-not-found"),
        (cluster.snapshots(POOL, "x"), "volume-not-found"),
        (cluster.create_snapshot(POOL, "x", "s"), "volume-not-found"),
        (cluster.rollback(POOL, "x", "s"), "volume-not-found"),
        (cluster.locks(POOL, "x"), "volume-not-found"),
        (cluster.watchers(POOL, "x"), "volume-not-found"),
        (cluster.osd_out(7), "osd-not-found"),
        (cluster.osd_in(-1), "osd-not-found"),
        (bench.host.start_osd(7), "osd-not-found"),
    ):
        assert await outcome(work) == code


async def test_a_clone_has_the_data_and_does_not_need_its_source(bench: Bench) -> None:
    await bench.cluster.create_volume(POOL, "source", 6 * MiB)
    await bench.write("source", b"before")
    await bench.cluster.create_snapshot(POOL, "source", "mine")
    await bench.cluster.clone_volume(POOL, "source", "copy")
    await bench.write("source", b"after!")
    copy = await bench.cluster.volume(POOL, "copy")
    assert copy.size == 6 * MiB and copy.parent is None and copy.snapshot_count == 0
    assert [each.name for each in await bench.cluster.snapshots(POOL, "source")] == ["mine"]
    await bench.cluster.remove_snapshot(POOL, "source", "mine")
    await bench.cluster.remove_volume(POOL, "source")
    assert (await bench.read("copy")).startswith(b"before\0")
    with pytest.raises(AlreadyThere):
        await bench.cluster.clone_volume(POOL, "copy", "copy")
    assert await bench.cluster.snapshots(POOL, "copy") == []
    await bench.cluster.remove_volume(POOL, "copy")


async def test_an_interrupted_clone_has_its_data_names_its_source_and_can_be_finished(bench: Bench) -> None:
    await bench.cluster.create_volume(POOL, "source", 6 * MiB)
    await bench.write("source", b"data")
    await bench.interrupt_clone("source", "copy")
    assert ((await bench.cluster.volume(POOL, "copy")).parent or "").startswith(f"{POOL}/source@")
    listed = {each.name: each.parent for each in await bench.cluster.volumes(POOL)}
    assert listed["source"] is None and (listed["copy"] or "").startswith(f"{POOL}/source@")
    assert (await bench.read("copy")).startswith(b"data\0")
    with pytest.raises(InUse, match="a clone still depends on it"):
        await bench.cluster.remove_volume(POOL, "source")
    for _ in range(2):
        await bench.cluster.flatten_volume(POOL, "copy")
    assert (await bench.cluster.volume(POOL, "copy")).parent is None
    await bench.cluster.remove_volume(POOL, "source")
    assert (await bench.read("copy")).startswith(b"data\0")
    await bench.cluster.remove_volume(POOL, "copy")


async def test_the_snapshot_of_an_interrupted_clone_does_not_block_the_removal_of_a_volume(real: CliBench) -> None:
    await real.cluster.create_volume(POOL, "source", 4 * MiB)
    await real.rbd("snap", "create", "--no-progress", f"{POOL}/source@{LEFTOVER}1234")
    assert [each.name for each in await real.cluster.snapshots(POOL, "source")] == [f"{LEFTOVER}1234"]
    await real.cluster.remove_volume(POOL, "source")
    assert await real.cluster.volumes(POOL) == []


async def test_the_snapshot_of_an_interrupted_clone_is_removed_when_it_is_finished(real: CliBench) -> None:
    await real.cluster.create_volume(POOL, "source", 4 * MiB)
    snapshot = f"{POOL}/source@{LEFTOVER}1234"
    await real.rbd("snap", "create", "--no-progress", snapshot)
    await real.rbd("clone", "--rbd-default-clone-format", "2", snapshot, f"{POOL}/copy")
    await real.cluster.flatten_volume(POOL, "copy")
    assert await real.cluster.snapshots(POOL, "source") == []


async def test_an_incomplete_volume_is_named_and_can_be_removed(real: CliBench) -> None:
    cluster = real.cluster
    for name in ("half", "whole"):
        await cluster.create_volume(POOL, name, 4 * MiB)
    await real.rados("rm", f"rbd_header.{(await cluster.volume(POOL, 'half')).id}")
    assert [(each.name, bool(each.id)) for each in await cluster.volumes(POOL)] == [("half", False), ("whole", True)]
    assert await outcome(cluster.volume(POOL, "half")) == "volume-not-found"
    assert await outcome(cluster.create_volume(POOL, "half", 4 * MiB)) == "volume-incomplete"
    assert await outcome(cluster.clone_volume(POOL, "whole", "half")) == "volume-incomplete"
    assert await outcome(cluster.rename_volume(POOL, "whole", "half")) == "volume-incomplete"
    await cluster.remove_volume(POOL, "half")
    assert [each.name for each in await cluster.volumes(POOL)] == ["whole"]
    await cluster.rename_volume(POOL, "whole", "half")
    assert await cluster.snapshots(POOL, "half") == []


async def test_only_an_incomplete_volume_is_discarded(real: CliBench) -> None:
    cluster = real.cluster
    for name in ("half", "whole", "nameless"):
        await cluster.create_volume(POOL, name, 4 * MiB)
    await real.rados("rm", f"rbd_header.{(await cluster.volume(POOL, 'half')).id}")
    await real.rados("rm", "rbd_id.nameless")  # it cannot be opened, but its data are there
    for name in ("half", "whole", "nameless", "none"):
        await cluster.discard_volume(POOL, name)
    assert (await real.rbd("ls", POOL)).split() == [b"nameless", b"whole"]


@pytest.mark.parametrize("kept", ["old", "new"])
async def test_an_interrupted_rename_leaves_one_name_and_all_data(real: CliBench, kept: str) -> None:
    cluster, stray = real.cluster, {"old": "new", "new": "old"}[kept]
    await cluster.create_volume(POOL, kept, 4 * MiB)
    await real.write(kept, b"data")
    await real.rados("cp", f"rbd_id.{kept}", f"rbd_id.{stray}")
    assert [each.name for each in await cluster.volumes(POOL)] == [kept]
    for work in (
        cluster.volume(POOL, stray),
        cluster.remove_volume(POOL, stray),
        cluster.rollback(POOL, stray, "s"),
        cluster.flatten_volume(POOL, stray),
    ):
        assert await outcome(work) == "volume-not-found"
    assert await outcome(cluster.rename_volume(POOL, "old", "new")) == ("done" if kept == "old" else "volume-exists")
    assert (await real.read("new")).startswith(b"data\0")
    await cluster.create_volume(POOL, "old", 8 * MiB)
    await cluster.remove_volume(POOL, "old")
    assert (await real.read("new")).startswith(b"data\0")
    assert [each.name for each in await cluster.volumes(POOL)] == ["new"]


async def test_a_dangling_name_does_not_block_its_reuse(real: CliBench) -> None:
    await real.cluster.create_volume(POOL, "lost", 4 * MiB)
    await real.rados("cp", "rbd_id.lost", "rbd_id.kept")
    await real.cluster.remove_volume(POOL, "lost")
    assert await outcome(real.cluster.remove_volume(POOL, "kept")) == "volume-not-found"
    await real.cluster.create_volume(POOL, "kept", 4 * MiB)
    assert [each.name for each in await real.cluster.volumes(POOL)] == ["kept"]


async def test_a_volume_grows_and_shrinks_only_on_request(bench: Bench) -> None:
    await bench.cluster.create_volume(POOL, "disk", 4 * MiB)
    await bench.cluster.resize_volume(POOL, "disk", 4 * MiB)
    await bench.cluster.resize_volume(POOL, "disk", 12 * MiB)
    with pytest.raises(Shrinks, match="data beyond the new end would be lost"):
        await bench.cluster.resize_volume(POOL, "disk", 8 * MiB)
    assert (await bench.cluster.volume(POOL, "disk")).size == 12 * MiB
    await bench.cluster.resize_volume(POOL, "disk", 8 * MiB, shrink=True)
    assert (await bench.cluster.volume(POOL, "disk")).size == 8 * MiB
    await bench.cluster.remove_volume(POOL, "disk")


async def test_a_volume_is_renamed_unless_the_name_is_in_use(bench: Bench) -> None:
    await bench.cluster.create_volume(POOL, "a", 4 * MiB)
    await bench.cluster.create_volume(POOL, "b", 4 * MiB)
    with pytest.raises(AlreadyThere):
        await bench.cluster.rename_volume(POOL, "a", "b")
    await bench.cluster.rename_volume(POOL, "a", "c")
    assert [volume.name for volume in await bench.cluster.volumes(POOL)] == ["b", "c"]
    for name in ("b", "c"):
        await bench.cluster.remove_volume(POOL, name)


async def test_the_life_of_snapshots(bench: Bench) -> None:
    cluster = bench.cluster
    await cluster.create_volume(POOL, "disk", 4 * MiB)
    await bench.write("disk", b"first")
    await cluster.create_snapshot(POOL, "disk", "one")
    with pytest.raises(
        AlreadyThere, match=f"Cannot add snapshot '{POOL}/disk@one': a snapshot of this name already exists"
    ):
        await cluster.create_snapshot(POOL, "disk", "one")
    await cluster.resize_volume(POOL, "disk", 8 * MiB)
    await bench.write("disk", b"second")
    await cluster.create_snapshot(POOL, "disk", "two")
    with pytest.raises(AlreadyThere):
        await cluster.rename_snapshot(POOL, "disk", "two", "one")
    await cluster.rename_snapshot(POOL, "disk", "two", "three")
    one, three = await cluster.snapshots(POOL, "disk")
    assert (one.name, one.size, one.protected, three.name, three.size) == ("one", 4 * MiB, False, "three", 8 * MiB)
    assert one.id != three.id and time.strptime(one.timestamp, "%a %b %d %H:%M:%S %Y")
    assert [each.snapshots for each in await cluster.volumes(POOL)] == [("one", "three")]
    assert (await cluster.volume(POOL, "disk")).snapshot_count == 2
    with pytest.raises(HasSnapshots):
        await cluster.remove_volume(POOL, "disk")
    await cluster.rollback(POOL, "disk", "one")
    assert (await bench.read("disk")) == b"first".ljust(4 * MiB, b"\0")
    for gone in (cluster.remove_snapshot, cluster.rollback):
        with pytest.raises(NotFound, match=r"no snapshot '.*@two'"):
            await gone(POOL, "disk", "two")
    for name in ("one", "three"):
        await cluster.remove_snapshot(POOL, "disk", name)
    await cluster.remove_volume(POOL, "disk")


async def test_names_of_clone_snapshots_are_reserved(bench: Bench) -> None:
    await bench.cluster.create_volume(POOL, "disk", 4 * MiB)
    with pytest.raises(Invalid, match="must not begin with"):
        await bench.cluster.create_snapshot(POOL, "disk", f"{LEFTOVER}x")
    await bench.cluster.remove_volume(POOL, "disk")


async def test_an_open_volume_is_neither_removed_nor_rolled_back(bench: Bench) -> None:
    await bench.cluster.create_volume(POOL, "disk", 4 * MiB)
    await bench.cluster.create_snapshot(POOL, "disk", "s")
    await bench.open("disk")
    (watcher,) = await bench.cluster.watchers(POOL, "disk")
    (lock,) = await bench.cluster.locks(POOL, "disk")
    assert watcher.client == lock.locker and lock.address
    assert [each.locked for each in await bench.cluster.volumes(POOL)] == [True]
    with pytest.raises(InUse, match="a client has it open"):
        await bench.cluster.rollback(POOL, "disk", "s")
    await bench.cluster.remove_snapshot(POOL, "disk", "s")
    with pytest.raises(InUse, match="a client has it open") as raised:
        await bench.cluster.remove_volume(POOL, "disk")
    assert raised.value.code == "volume-in-use"
    await bench.close("disk")
    assert await bench.cluster.watchers(POOL, "disk") == [] == await bench.cluster.locks(POOL, "disk")
    await bench.cluster.remove_volume(POOL, "disk")


async def test_a_client_that_loses_its_lock_cannot_write(bench: Bench) -> None:
    await bench.cluster.create_volume(POOL, "disk", 4 * MiB)
    await bench.open("disk")
    assert await bench.can_write("disk")
    (lock,) = await bench.cluster.locks(POOL, "disk")
    for _ in range(2):
        await bench.cluster.remove_lock(POOL, "disk", lock)
    assert await bench.cluster.locks(POOL, "disk") == []
    assert not await bench.can_write("disk")
    await bench.close("disk")
    await bench.cluster.remove_lock(POOL, "gone", Lock("--help", "-p", ""))

    async def unwatched() -> bool:
        return not await bench.cluster.watchers(POOL, "disk")

    await until(unwatched)
    await bench.cluster.remove_volume(POOL, "disk")


HOSTILE = [
    *("", "-p", "--help", "a b", "../x", "a/b", "a@b", "a\n", "a;id", "$(id)", "x" * 129, ".hidden", "ä", "a\0b"),
    *("vms/../x", "@", "*"),
]


async def test_names_cannot_inject(bench: Bench) -> None:
    for name in HOSTILE:
        works = _uses(bench.cluster, name)
        codes = [await outcome(work) for work in works]
        assert codes == ["invalid-value"] * len(works), name


def _uses(cluster: Cluster, name: str) -> list[Coroutine[Any, Any, Any]]:
    """Every use of a name."""
    lock = Lock("auto 1", "client.1", "")
    return [
        *(cluster.create_pool(name, 8, 1, 1), cluster.remove_pool(name), cluster.volumes(name), cluster.auth_key(name)),
        *(cluster.volume(name, "x"), cluster.volume(POOL, name), cluster.create_volume(name, "x", MiB)),
        *(cluster.create_volume(POOL, name, MiB), cluster.clone_volume(POOL, name, "x")),
        *(cluster.clone_volume(POOL, "x", name), cluster.flatten_volume(POOL, name)),
        *(cluster.resize_volume(POOL, name, MiB), cluster.rename_volume(POOL, name, "x")),
        *(cluster.rename_volume(POOL, "x", name), cluster.remove_volume(POOL, name), cluster.snapshots(POOL, name)),
        *(cluster.create_snapshot(POOL, name, "s"), cluster.create_snapshot(POOL, "x", name)),
        *(cluster.rename_snapshot(POOL, "x", "s", name), cluster.locks(POOL, name), cluster.watchers(POOL, name)),
        cluster.remove_lock(POOL, name, lock),
    ]


async def test_an_osd_is_described_and_set_in_and_out(bench: Bench) -> None:
    (osd,) = await bench.cluster.osds()
    assert (osd.id, osd.node, osd.up, osd.in_, osd.weight, osd.reweight) == (0, "pvchv1", True, True, 1.0, 1.0)
    assert osd.kb == 8 * GiB // 1024 and osd.pgs >= 8 and osd.state == ("exists", "up") and len(osd.uuid) == 36
    assert osd.used_bytes + osd.available_bytes == 8 * GiB and osd.primary_affinity == 1.0
    for _ in range(2):
        await bench.cluster.osd_out(0)
    (osd,) = await bench.cluster.osds()
    assert osd.up and not osd.in_ and osd.reweight == 0.0
    for _ in range(2):
        await bench.cluster.osd_in(0)
    (osd,) = await bench.cluster.osds()
    assert osd.in_ and osd.reweight == 1.0


async def test_the_only_osd_is_not_safe_to_destroy_and_not_purged(bench: Bench) -> None:
    assert await bench.cluster.safe_to_destroy([0, 77]) == {77}
    assert await bench.cluster.safe_to_destroy([]) == frozenset()
    with pytest.raises(InUse, match="not down, or data would lose a copy") as raised:
        await bench.cluster.purge_osd(0)
    assert raised.value.code == "osd-in-use"
    await bench.cluster.purge_osd(77)


async def test_while_ceph_does_not_answer_everything_fails_within_the_deadline(bench: Bench) -> None:
    for name in ("disk", "other"):
        await bench.cluster.create_volume(POOL, name, 4 * MiB)
    cluster = bench.impatient
    bench.stop()
    try:
        works = [
            *(cluster.status(), cluster.osds(), cluster.pools(), cluster.volumes(POOL), cluster.volume(POOL, "disk")),
            *(cluster.remove_volume(POOL, "disk"), cluster.resize_volume(POOL, "other", 8 * MiB)),
            *(cluster.clone_volume(POOL, "disk", "copy"), cluster.set_option("noout")),
        ]
        async with asyncio.timeout(60):  # much less than what is marked as long may take
            results = await asyncio.gather(*works, return_exceptions=True)
        assert {type(result) for result in results} == {CephUnavailable}
        assert all("did not answer within" in str(result) for result in results)
    finally:
        bench.resume()
    assert await bench.cluster.options() == frozenset()
    assert [volume.name for volume in await bench.cluster.volumes(POOL)] == ["disk", "other"]
    for name in ("disk", "other"):
        await bench.cluster.remove_volume(POOL, name)


async def test_an_osd_is_added_drained_and_removed_and_the_data_stays(bench: Bench) -> None:
    cluster, host = bench.cluster, bench.host
    data = bytes(range(256)) * 65536
    await cluster.create_volume(POOL, "disk", len(data))
    await bench.write("disk", data)
    device = await bench.device()
    assert await host.check_device(device) == device
    assert [each.refusal for each in await host.devices() if each.path == device] == [None]
    osd = await host.prepare_osd(device, 0.5)
    found = {each.id: each for each in await cluster.osds()}[osd]
    assert (found.node, found.up, found.in_, found.weight) == (NODE, True, True, 0.5)
    assert await host.local_osds() == [osd] and await host.osd_running(osd)
    await host.start_osd(osd)
    with pytest.raises(DeviceRefused):
        await host.prepare_osd(device, 1.0)
    with pytest.raises(InUse):
        await cluster.purge_osd(osd)
    await _remove(bench, osd)
    assert [each.id for each in await cluster.osds()] == [0] and await host.local_osds() == []
    assert await host.check_device(device) == device
    assert await bench.read("disk") == data
    await cluster.remove_volume(POOL, "disk")


async def _remove(bench: Bench, osd: int) -> None:
    """Drain an OSD and remove it."""
    await bench.cluster.osd_out(osd)

    async def drained() -> bool:
        states = (await bench.cluster.status()).pgs_by_state
        return osd in await bench.cluster.safe_to_destroy([osd]) and set(states) == {"active+clean"}

    await until(drained)
    for _ in range(2):
        await bench.host.remove_osd(osd)
    for _ in range(2):
        await bench.cluster.purge_osd(osd)


async def test_an_impossible_weight_is_refused(bench: Bench) -> None:
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(Invalid, match="weight must be from 0"):
            await bench.host.prepare_osd("/dev/null", weight)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/dev/null", "/dev/../etc/passwd", "/dev", "sdb", "/dev/none", "-h", ""]
)
async def test_an_osd_requires_a_block_device(bench: Bench, path: str) -> None:
    with pytest.raises(DeviceRefused, match="is not a block device of this node") as raised:
        await bench.host.prepare_osd(path, 1.0)
    assert raised.value.code == "device-refused"
    assert [osd.id for osd in await bench.cluster.osds()] == [0]


async def test_a_device_in_use_does_not_become_an_osd(real: CliBench, tmp_path: Path) -> None:
    mounted, swap, parted = real.image(), real.image(), real.image()
    small, readonly = await real.loop(real.image(MiB)), await real.loop(real.image(), "--read-only")
    await _run("mkfs.ext4", "-q", "-F", str(mounted))
    await _run("mkswap", str(swap))
    await _run("parted", "--script", str(parted), "mklabel", "gpt", "mkpart", "data", "1MiB", "1GiB")
    filesystem, swapped = await real.loop(mounted), await real.loop(swap)
    partitioned, beneath = await real.loop(parted), await real.loop(parted, "--partscan")
    reasons = {
        filesystem: "holds ext4",
        swapped: "holds swap",
        partitioned: "holds gpt",
        beneath: "is in use|holds gpt",
        small: "is too small for an OSD",
        readonly: "is read-only",
        await _device_of("/"): "is in use|is mounted on",
    }
    for device, reason in reasons.items():
        with pytest.raises(DeviceRefused, match=reason):
            await real.host.prepare_osd(device, 1.0)
    (tmp_path / "mount").mkdir()
    await _run("mount", filesystem, str(tmp_path / "mount"))
    try:
        link = tmp_path / "link"
        link.symlink_to(filesystem)
        for path, reason in ((filesystem, "is mounted on"), (str(link), "is not a block device")):
            with pytest.raises(DeviceRefused, match=reason):
                await real.host.prepare_osd(path, 1.0)
    finally:
        await _run("umount", str(tmp_path / "mount"))
    refusals = {device.path: device.refusal for device in await real.host.devices()}
    for device, reason in reasons.items():
        assert re.search(reason, refusals[device] or "")
    assert [osd.id for osd in await real.cluster.osds()] == [0]


async def _run(*argv: str) -> str:
    return (await run(argv, timeout=60)).stdout.decode().strip()


async def _device_of(path: str) -> str:
    return await _run("findmnt", "--noheadings", "--output", "SOURCE", path)


class Died(Exception):
    """Stands for the end of the process."""


async def _die(*args: object) -> None:
    raise Died


async def test_an_interrupted_creation_of_an_osd_leaves_nothing(real: CliBench, monkeypatch: MonkeyPatch) -> None:
    device = await real.device()
    monkeypatch.setattr(real.real_host, "_start", _die)
    with pytest.raises(Died):
        await real.host.prepare_osd(device, 1.0)
    monkeypatch.undo()
    (half,) = [osd for osd in await real.cluster.osds() if osd.id != 0]
    assert (half.up, half.node, half.pgs) == (False, NODE, 0)
    again = CliOsdHost(real.conf, NODE)
    with pytest.raises(DeviceRefused, match="belongs or belonged to an OSD"):
        await again.check_device(device)
    for _ in range(2):
        await again.undo_interrupted()
    assert [osd.id for osd in await real.cluster.osds()] == [0]
    assert await again.check_device(device) == device and await again.local_osds() == []


async def test_an_osd_that_was_up_when_its_creation_was_interrupted_stays(
    real: CliBench, monkeypatch: MonkeyPatch
) -> None:
    device = await real.device()
    monkeypatch.setattr(real.real_host, "_until_up", _die)
    with pytest.raises(Died):
        await real.host.prepare_osd(device, 1.0)
    (osd,) = await real.host.local_osds()

    async def up() -> bool:
        return any(each.id == osd and each.up for each in await real.cluster.osds())

    await until(up)
    await real.host.undo_interrupted()
    assert await up() and await real.host.osd_running(osd)
    await _remove(real, osd)
    assert await real.host.check_device(device) == device


async def test_a_failed_creation_of_an_osd_leaves_nothing(real: CliBench, monkeypatch: MonkeyPatch) -> None:
    async def fail(*args: object) -> None:
        raise CephError("The disk is broken.")

    device = await real.device()
    monkeypatch.setattr(real.real_host, "_start", fail)
    with pytest.raises(CephError, match="disk is broken"):
        await real.host.prepare_osd(device, 1.0)
    assert [osd.id for osd in await real.cluster.osds()] == [0]
    assert await real.host.check_device(device) == device


async def test_the_osd_of_a_missing_device_is_removed(real: CliBench) -> None:
    osd = await real.host.prepare_osd(await real.device(), 0.0)
    folder = real.directory / "ceph" / "osd" / str(osd)
    (folder / "block").unlink()
    (folder / "block").symlink_to("/dev/gone")
    await _remove(real, osd)
    assert await real.host.local_osds() == [] and not folder.exists()
    assert [each.id for each in await real.cluster.osds()] == [0]


async def test_an_osd_in_a_file_is_not_stopped(real: CliBench) -> None:
    assert await real.host.local_osds() == []
    with pytest.raises(CephRefused, match="keeps its data in a file"):
        await real.host.remove_osd(0)
    assert await real.host.osd_running(0)
