"""Two API servers at once: nothing is made twice, and nothing goes that a profile uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pvcd import Context
from pvcd.clock import settle
from pvcd.daemon.components import make_context
from pvcd.declare.context import Role
from pvcd.errors import Conflict, NotFound, PvcdError
from pvcd.store.memory import MemoryTree
from pvcd_plugins.provisioner import service
from pvcd_plugins.provisioner.records import Counter, Numbered, Profile, Script, StorageTemplate, SystemTemplate
from tests.unit.provisioner.conftest import PROFILE, Provisioner


@pytest.fixture
async def other(provisioner: Provisioner) -> AsyncIterator[Context]:
    """Another API server of the same cluster."""
    cluster = provisioner.cluster
    tree = MemoryTree(cluster.server)
    context = make_context(Role.API, cluster.settings, cluster.registry, tree, cluster.clock)
    await context.store.open()
    yield context
    await context.store.close()


async def outcome(work: Any, cluster: Any) -> PvcdError | None:
    """How a rule ends that may have to be run again."""
    task = asyncio.ensure_future(work)
    for _ in range(200):
        await settle()
        if task.done():
            break
        await cluster.advance(0.05)
    try:
        await task
    except PvcdError as error:
        return error
    return None


def numbers(context: Context) -> list[int]:
    things: list[Numbered] = [*context.store.all(SystemTemplate), *context.store.all(Script)]
    return [thing.id for thing in things]


@pytest.mark.parametrize("turns", range(6))
async def test_a_template_is_kept_or_the_profile_is_not_made(
    provisioner: Provisioner, other: Context, turns: int
) -> None:
    await provisioner.fill()
    await settle()
    profile = Profile(name="web", **PROFILE)
    making = asyncio.ensure_future(outcome(service.create_profile(other, profile), provisioner.cluster))
    for _ in range(turns):
        await asyncio.sleep(0)
    removed = await outcome(service.remove(provisioner.context, SystemTemplate, "small"), provisioner.cluster)
    made = await making
    await provisioner.context.store.catch_up()
    there = provisioner.context.store.get(SystemTemplate, "small") is not None
    assert there == bool(provisioner.context.store.all(Profile))
    assert [type(each) for each in (made, removed)] in ([type(None), Conflict], [NotFound, type(None)])


async def test_a_removal_that_knows_nothing_of_the_profile_yet_sees_it_all_the_same(
    provisioner: Provisioner, other: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    await provisioner.fill()
    await settle()
    store = provisioner.context.store
    caught_up = store.catch_up

    async def made_just_afterwards() -> None:
        await caught_up()
        monkeypatch.setattr(store, "catch_up", caught_up)
        await service.create_profile(other, Profile(name="web", **PROFILE))

    monkeypatch.setattr(store, "catch_up", made_just_afterwards)
    error = await outcome(service.remove(provisioner.context, SystemTemplate, "small"), provisioner.cluster)
    assert isinstance(error, Conflict) and error.code == "used-by-profile"
    assert store.get(SystemTemplate, "small") is not None


async def test_a_profile_is_not_made_of_what_goes_at_the_same_time(
    provisioner: Provisioner, other: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    await provisioner.fill()
    await settle()
    write = other.store.write

    async def gone_just_before(*changes: Any) -> None:
        monkeypatch.setattr(other.store, "write", write)
        await service.remove(provisioner.context, StorageTemplate, "root")
        await write(*changes)

    monkeypatch.setattr(other.store, "write", gone_just_before)
    error = await outcome(service.create_profile(other, Profile(name="web", **PROFILE)), provisioner.cluster)
    assert isinstance(error, NotFound) and error.code == "storage-template-not-found"
    assert provisioner.context.store.all(Profile) == []


async def test_of_two_that_make_the_same_one_comes_second(provisioner: Provisioner, other: Context) -> None:
    draft = SystemTemplate(name="small", vcpus=1, vram=1)
    outcomes = await asyncio.gather(
        outcome(service.create_system(provisioner.context, draft), provisioner.cluster),
        outcome(service.create_system(other, draft), provisioner.cluster),
    )
    assert [error.code for error in outcomes if error] == ["system-template-exists"]


async def test_ids_are_never_given_twice(provisioner: Provisioner, other: Context) -> None:
    work = [
        outcome(service.create_system(context, SystemTemplate(name=f"{name}{n}", vcpus=1, vram=1)), provisioner.cluster)
        for n in range(5)
        for name, context in (("a", provisioner.context), ("b", other))
    ]
    assert await asyncio.gather(*work) == [None] * 10
    await provisioner.context.store.catch_up()
    assert sorted(numbers(provisioner.context)) == list(range(1, 11))
    await provisioner.do("DELETE", "/template/system/a0")
    await provisioner.do("POST", "/template/system/a0", vcpus=1, vram=1)
    assert (await provisioner.get("/template/system/a0"))[0]["id"] == 11
    counter = provisioner.context.store.get(Counter)
    assert counter is not None and counter.last == 11


async def test_disks_that_are_added_at_once_are_all_there(provisioner: Provisioner, other: Context) -> None:
    await provisioner.do("POST", "/template/storage/disks")
    await settle()
    options = service.DiskOptions(pool="vms", disk_size=1)
    work = [
        outcome(service.add_disk(context, "disks", disk_id, options), provisioner.cluster)
        for disk_id, context in (("sda", provisioner.context), ("sdb", other), ("sdc", provisioner.context))
    ]
    assert await asyncio.gather(*work) == [None] * 3
    await provisioner.context.store.catch_up()
    (template,) = provisioner.context.store.all(StorageTemplate)
    assert [disk.disk_id for disk in template.disks] == ["sda", "sdb", "sdc"]
    assert sorted(disk.id for disk in template.disks) == [2, 3, 4]
