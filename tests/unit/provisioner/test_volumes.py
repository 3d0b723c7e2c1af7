"""The volumes of a VM that is being built: only those that it created are removed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pvcd.clock import VirtualClock, settle
from pvcd.errors import Conflict, Failed, NotFound
from pvcd_plugins.ceph.cluster import CephUnavailable
from pvcd_plugins.ceph.cluster.fake import FakeCluster
from pvcd_plugins.ceph.mapping.fake import FakeMapping
from pvcd_plugins.provisioner import volumes
from pvcd_plugins.provisioner.volumes import Leftovers, Wanted

GIB = 1024**3
SDA, SDB = Wanted("vms", "web1_sda", 1), Wanted("vms", "web1_sdb", source="golden")


class Journal:
    """The facts of a step, and each state that they had."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.states: list[list[tuple[str, bool]]] = []

    async def intend(self, **facts: Any) -> None:
        self.facts |= facts
        self.states += [[(fact["volume"], fact["id"] is not None) for fact in facts.get("volumes", ())]] * (
            "volumes" in facts
        )


@pytest.fixture
async def ceph() -> FakeCluster:
    cluster = FakeCluster(VirtualClock())
    cluster.add_osd("hv1")
    await cluster.create_pool("vms", 8, 1, 1)
    await cluster.create_volume("vms", "golden", GIB)
    cluster.write("vms", "golden", b"golden")
    return cluster


@pytest.fixture
def journal() -> Journal:
    return Journal()


async def names(ceph: FakeCluster) -> list[str]:
    return [each.name for each in await ceph.volumes("vms")]


async def test_volumes_are_created_and_cloned_and_journaled_before_and_after(
    ceph: FakeCluster, journal: Journal
) -> None:
    await volumes.create(ceph, [SDA, SDB], journal.intend)
    assert (await ceph.volume("vms", "web1_sda")).size == GIB
    assert ceph.read("vms", "web1_sdb").startswith(b"golden")
    assert journal.states == [
        [("web1_sda", False)],
        [("web1_sda", True)],
        [("web1_sda", True), ("web1_sdb", False)],
        [("web1_sda", True), ("web1_sdb", True)],
    ]
    for _ in range(2):  # the second time it is gone already
        await volumes.remove(ceph, journal.facts["volumes"], VirtualClock())
        assert await names(ceph) == ["golden"]


async def test_a_volume_that_comes_after_its_program_was_ended_is_removed(ceph: FakeCluster, journal: Journal) -> None:
    ceph.failing["create_volume"] = CephUnavailable("Ceph did not answer within 30 s.")
    with pytest.raises(CephUnavailable):
        await volumes.create(ceph, [SDA], journal.intend)
    ceph.late.add(("vms", "web1_sda"))
    await volumes.remove(ceph, journal.facts["volumes"], VirtualClock())
    assert not ceph.late
    assert await names(ceph) == ["golden"]


async def test_the_removal_of_a_volume_that_was_interrupted_goes_on(ceph: FakeCluster, journal: Journal) -> None:
    await volumes.create(ceph, [SDA], journal.intend)
    ceph.failing["volume"] = NotFound("volume", "vms/web1_sda")  # as Ceph says of an incomplete one
    await volumes.remove(ceph, journal.facts["volumes"], VirtualClock())
    assert await names(ceph) == ["golden"]


async def test_an_existing_volume_is_neither_used_nor_removed(ceph: FakeCluster, journal: Journal) -> None:
    await ceph.create_volume("vms", "web1_sdb", GIB)
    with pytest.raises(Conflict, match=r"Cannot create volume .vms/web1_sdb.: it exists already") as caught:
        await volumes.create(ceph, [SDA, SDB], journal.intend)
    assert caught.value.code == "volume-exists"
    await volumes.remove(ceph, journal.facts["volumes"], VirtualClock())
    assert await names(ceph) == ["golden", "web1_sdb"]


async def test_a_volume_created_between_check_and_creation_is_not_removed(ceph: FakeCluster, journal: Journal) -> None:
    async def intend(**facts: Any) -> None:
        await journal.intend(**facts)
        if "web1_sda" not in await names(ceph):
            await ceph.create_volume("vms", "web1_sda", GIB)

    with pytest.raises(Conflict):
        await volumes.create(ceph, [SDA], intend)
    assert journal.facts["volumes"] == []


async def test_a_new_volume_with_the_name_of_ours_is_not_removed(ceph: FakeCluster, journal: Journal) -> None:
    await volumes.create(ceph, [SDA], journal.intend)
    await ceph.remove_volume("vms", "web1_sda")
    await ceph.create_volume("vms", "web1_sda", 2 * GIB)
    await volumes.remove(ceph, journal.facts["volumes"], VirtualClock())
    assert await names(ceph) == ["golden", "web1_sda"]


async def test_volumes_created_before_a_failure_are_removed(ceph: FakeCluster, journal: Journal) -> None:
    with pytest.raises(NotFound, match="nothing"):
        await volumes.create(ceph, [SDA, Wanted("vms", "web1_sdb", source="nothing")], journal.intend)
    await volumes.remove(ceph, journal.facts["volumes"], VirtualClock())
    assert await names(ceph) == ["golden"]


async def test_an_unknown_pool_is_an_error_before_anything_is_journaled(ceph: FakeCluster, journal: Journal) -> None:
    with pytest.raises(NotFound, match="pool 'none'"):
        await volumes.create(ceph, [Wanted("none", "web1_sda", 1)], journal.intend)
    assert journal.facts == {}


async def test_a_volume_is_removed_once_its_killed_client_has_expired(ceph: FakeCluster, journal: Journal) -> None:
    await volumes.create(ceph, [SDA], journal.intend)
    ceph.open_volume("vms", "web1_sda")
    clock = VirtualClock()
    removing = asyncio.create_task(volumes.remove(ceph, journal.facts["volumes"], clock))
    await clock.advance(30)
    assert not removing.done()
    ceph.close_volume("vms", "web1_sda")
    await clock.advance(2)
    await settle()
    assert removing.done()
    assert await names(ceph) == ["golden"]


async def test_leftovers_are_named_and_the_rest_is_removed(ceph: FakeCluster, journal: Journal) -> None:
    await volumes.create(ceph, [SDA, SDB], journal.intend)
    ceph.open_volume("vms", "web1_sdb")
    clock = VirtualClock()
    removing = asyncio.create_task(volumes.remove(ceph, journal.facts["volumes"], clock))
    await clock.advance(60)
    with pytest.raises(
        Leftovers, match=r"^vms/web1_sdb: Cannot remove volume 'vms/web1_sdb': a client has it open"
    ) as caught:
        await removing
    assert len(caught.value.sentences) == 1
    assert await names(ceph) == ["golden", "web1_sdb"]


async def test_several_volumes_share_one_time_limit(ceph: FakeCluster, journal: Journal) -> None:
    await volumes.create(ceph, [SDA, SDB], journal.intend)
    for volume in ("web1_sda", "web1_sdb"):
        ceph.open_volume("vms", volume)
    clock = VirtualClock()
    removing = asyncio.create_task(volumes.remove(ceph, journal.facts["volumes"], clock))
    await clock.advance(45)
    assert removing.done()
    with pytest.raises(Leftovers, match="web1_sda"):
        await removing


@pytest.mark.parametrize("act", ["volume", "settle_volume", "remove_volume"])
async def test_volumes_are_removed_once_ceph_answers_again(ceph: FakeCluster, journal: Journal, act: str) -> None:
    await volumes.create(ceph, [SDA, SDB], journal.intend)
    if act == "settle_volume":
        journal.facts["volumes"][-1]["id"] = None
    ceph.failing[act] = CephUnavailable("Ceph did not finish within 10 s.")
    clock = VirtualClock()
    removing = asyncio.create_task(volumes.remove(ceph, journal.facts["volumes"], clock))
    await clock.advance(20)
    assert not removing.done()
    ceph.failing.clear()
    await clock.advance(2)
    await removing
    assert await names(ceph) == ["golden"]


async def test_without_ceph_all_volumes_are_leftovers(ceph: FakeCluster, journal: Journal) -> None:
    await volumes.create(ceph, [SDA, SDB], journal.intend)
    ceph.failing["volume"] = CephUnavailable("Nobody answers.")
    clock = VirtualClock()
    removing = asyncio.create_task(volumes.remove(ceph, journal.facts["volumes"], clock))
    await clock.advance(60)
    with pytest.raises(Leftovers) as caught:
        await removing
    assert caught.value.sentences == ("vms/web1_sdb: Nobody answers.", "vms/web1_sda: Nobody answers.")


async def test_mapped_volumes_are_unmapped_and_unmapped_ones_are_no_error(tmp_path: Path, journal: Journal) -> None:
    mapping = FakeMapping(tmp_path, [("vms", "web1_sda")])
    with pytest.raises(NotFound):
        await volumes.map_all(mapping, [("vms", "web1_sda"), ("vms", "web1_sdb")], journal.intend)
    assert [each.volume for each in await mapping.mapped()] == ["web1_sda"]
    for _ in range(2):
        await volumes.unmap_all(mapping, journal.facts["mapped"], VirtualClock())
        assert await mapping.mapped() == []


async def test_a_killed_mapping_is_a_failure(tmp_path: Path, journal: Journal) -> None:
    mapping = FakeMapping(tmp_path, [("vms", "web1_sda"), ("vms", "web1_sdb")])
    await volumes.map_all(mapping, [("vms", "web1_sda"), ("vms", "web1_sdb")], journal.intend)
    await volumes.refuse_broken(mapping, journal.facts["mapped"])
    mapping.kill("vms", "web1_sdb")
    with pytest.raises(Failed, match=r"^Cannot use 'vms/web1_sdb': mapping killed"):
        await volumes.refuse_broken(mapping, journal.facts["mapped"])


async def test_unmapping_waits_for_a_device_that_is_still_in_use(tmp_path: Path, journal: Journal) -> None:
    mapping = FakeMapping(tmp_path, [("vms", "web1_sda")])
    await volumes.map_all(mapping, [("vms", "web1_sda")], journal.intend)
    mapping.held.add(("vms", "web1_sda"))
    clock = VirtualClock()
    unmapping = asyncio.create_task(volumes.unmap_all(mapping, journal.facts["mapped"], clock))
    await clock.advance(3)
    mapping.held.clear()
    await clock.advance(2)
    await unmapping
    assert await mapping.mapped() == []
