"""The access of other plugins to storage."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pvcd import Context, Guard, NotFound, Operation, PvcdError, Refused
from pvcd_plugins.ceph import service
from tests.unit.ceph.conftest import Storage, storage_of


async def finish(storage: Storage, work: Any) -> Any:
    task = asyncio.ensure_future(work)
    await storage.cluster.advance(1)
    assert task.done()
    return task.result()


async def test_volumes_are_found_and_removed(storage: Storage) -> None:
    await storage.make("vms", "one")
    context = storage.context
    assert service.find_volume(context, "vms", "one").size == 1 << 30
    await finish(storage, service.remove_volume(context, "vms", "one"))
    with pytest.raises(NotFound):
        service.find_volume(context, "vms", "one")
    with pytest.raises(PvcdError) as error:
        await finish(storage, service.remove_volume(context, "vms", "one"))
    assert error.value.code == "volume-not-found"
    with pytest.raises(NotFound):
        service.find_pool(context, "nowhere")


async def test_a_node_may_ask_as_well(storage: Storage) -> None:
    await storage.make("vms", "one")
    await finish(storage, service.remove_volume(storage.cluster.agents["hv2"], "vms", "one"))
    assert await storage.ceph.volumes("vms") == []


async def test_locks_are_listed_and_cleared(storage: Storage) -> None:
    await storage.make("vms", "one")
    locks = [service.Lock("auto 1", "client.1", "192.0.2.1:0/1")]
    removed: list[service.Lock] = []
    storage.door.answers["locks"] = lambda pool, volume: [each for each in locks if each not in removed]
    storage.door.answers["remove_lock"] = lambda pool, volume, lock: removed.append(lock) or True  # type: ignore[func-returns-value]
    assert await finish(storage, service.locks(storage.context, "vms", "one")) == locks
    assert await finish(storage, service.clear_locks(storage.context, "vms", "one")) == locks
    assert await finish(storage, service.locks(storage.context, "vms", "one")) == []


async def test_the_user_and_key_of_guests_are_returned(storage: Storage) -> None:
    agent = storage.cluster.agents["hv1"]
    storage.door.answers["auth_key"] = lambda user: f"key of {user}"
    assert service.libvirt_user(agent) == "libvirt"
    assert await service.libvirt_key(agent) == "key of libvirt"


async def test_guards_are_asked_before_operations_that_may_lose_data() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    async def refuse(context: Context, operation: Operation) -> None:
        asked.append((operation.name, dict(operation.arguments)))
        raise Refused("It is in use.")

    guard = Guard("test", ("ceph-*",), refuse)
    async with storage_of([guard]) as storage:
        for method, path, values in (
            ("PUT", "/volume/vms/one", {"size": "2G"}),
            ("PUT", "/volume/vms/one", {"name": "two"}),
            ("DELETE", "/volume/vms/one", {}),
            ("POST", "/volume/snapshot/vms/one/now/rollback", {}),
            ("DELETE", "/pool/vms?yes_i_really_mean_it", {}),
            ("DELETE", "/osd/0?yes_i_really_mean_it", {}),
        ):
            storage.door.calls.clear()
            assert (await storage.ask(method, path, **values)).json == {"message": "It is in use.", "code": "refused"}
            assert not {each for each in storage.door.calls if each.startswith(("re", "osd_"))}
    assert [name for name, _ in asked] == [
        *("ceph-volume-resize", "ceph-volume-rename", "ceph-volume-remove", "ceph-snapshot-rollback"),
        *("ceph-pool-remove", "ceph-osd-remove"),
    ]
    assert asked[0][1] == {"pool": "vms", "volume": "one", "size": 2 << 30, "shrink": False}
    assert asked[1][1] == {"pool": "vms", "volume": "one", "new": "two"}
    assert {key: asked[3][1][key] for key in ("pool", "volume", "snapshot")} == {
        **{"pool": "vms", "volume": "one", "snapshot": "now"},
    }
