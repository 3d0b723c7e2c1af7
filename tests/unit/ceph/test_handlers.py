"""The node commands of the primary and the nodes, which may be interrupted at each step."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from pvcd import assign_primary
from pvcd_plugins.ceph.cluster import CephError, InUse
from pvcd_plugins.ceph.records import Osd, Volume
from tests.unit.ceph.conftest import Storage

REALLY = "?yes_i_really_mean_it"


async def test_a_change_is_answered_when_it_is_done_and_the_next_get_shows_it(storage: Storage) -> None:
    held = storage.door.hold("create_volume")
    asking = asyncio.ensure_future(
        storage.cluster.request("POST", "/api/v1/storage/ceph/volume", pool="vms", volume="one", size="1G")
    )
    await storage.cluster.advance(5)
    assert held.waiting and not asking.done()
    held.release()
    await storage.cluster.advance(0.1)
    assert (await asking).status == 200
    assert [volume["name"] for volume in await storage.get("/volume")] == ["one"]


async def test_one_of_two_clients_that_add_the_same_volume_is_refused(storage: Storage) -> None:
    replies = await asyncio.gather(
        *(storage.ask("POST", "/volume", pool="vms", volume="one", size="1G") for _ in range(2))
    )
    assert sorted(reply.status for reply in replies) == [200, 510]
    assert [reply.json["code"] for reply in replies if reply.status == 510] == ["volume-exists"]
    assert len(await storage.get("/volume")) == 1


async def test_concurrent_commands_each_get_their_own_answer(storage: Storage) -> None:
    async def make(number: int) -> str:
        reply = await storage.ask("POST", "/volume", pool="vms", volume=f"v{number}", size="1G")
        return str(reply.json["message"])

    messages = await asyncio.gather(*map(make, range(20)))
    assert messages == [f"Volume 'vms/v{number}' added." for number in range(20)]


@pytest.mark.parametrize("first", ["rename", "remove"])
async def test_records_match_ceph_after_a_concurrent_rename_and_removal(storage: Storage, first: str) -> None:
    await storage.make("vms", "one")
    requests = [storage.ask("PUT", "/volume/vms/one", name="two"), storage.ask("DELETE", "/volume/vms/one")]
    replies = await asyncio.gather(*(requests if first == "rename" else reversed(requests)))
    assert sorted(reply.status for reply in replies) == [200, 510]
    assert {volume["name"] for volume in await storage.get("/volume")} == {
        volume.name for volume in await storage.ceph.volumes("vms")
    }


async def test_a_volume_made_by_others_is_recorded_when_it_conflicts(storage: Storage) -> None:
    await storage.ceph.create_volume("vms", "one", 1 << 30)
    reply = await storage.ask("POST", "/volume", pool="vms", volume="one", size="1G")
    assert reply.json["code"] == "volume-exists"
    assert [volume["name"] for volume in await storage.get("/volume")] == ["one"]


async def test_a_volume_removed_by_others_is_forgotten_when_it_is_missed(storage: Storage) -> None:
    await storage.make("vms", "one")
    await storage.ceph.remove_volume("vms", "one")
    assert (await storage.ask("DELETE", "/volume/vms/one")).json["code"] == "volume-not-found"
    assert await storage.get("/volume") == []


async def test_a_volume_larger_than_the_free_space_is_refused(storage: Storage) -> None:
    (pool,) = await storage.ceph.pools()
    for size, status in ((pool.free_bytes + 1, 510), (pool.free_bytes, 200)):
        reply = await storage.ask("POST", "/volume", pool="vms", volume="one", size=size)
        assert reply.status == status
    reply = await storage.ask("POST", "/volume", pool="nowhere", volume="one", size="1G")
    assert reply.json["code"] == "pool-not-found"


async def test_a_volume_grows_by_the_free_space_at_most_and_shrinks_only_with_the_flag(storage: Storage) -> None:
    await storage.make("vms", "one", "4G")
    (pool,) = await storage.ceph.pools()
    beyond = await storage.ask("PUT", "/volume/vms/one", size=(4 << 30) + pool.free_bytes + 1)
    assert beyond.json["code"] == "pool-full"
    assert (await storage.ask("PUT", "/volume/vms/one", size="5G")).status == 200
    assert (await storage.ask("PUT", "/volume/vms/one", size="1G")).json["code"] == "volume-shrinks"
    assert (await storage.ask("PUT", "/volume/vms/one?shrink", size="1G")).status == 200
    assert (await storage.get("/volume/vms/one"))[0]["stats"]["size_bytes"] == 1 << 30


async def test_an_interrupted_copy_is_completed_by_the_same_request(storage: Storage) -> None:
    await storage.make("vms", "golden")
    await storage.make("vms", "copy")
    whole = await storage.ceph.volume("vms", "copy")
    storage.door.answers["volume"] = lambda pool, name: (
        dataclasses.replace(whole, parent="vms/golden@pvcd-clone-1")
        if name == "copy" and "flatten_volume" not in storage.door.calls
        else None
    )
    reply = await storage.ask("POST", "/volume", pool="vms", volume="copy", source_volume="other")
    assert reply.json["code"] in ("volume-exists", "volume-not-found"), "it is no clone of that"
    reply = await storage.ask("POST", "/volume", pool="vms", volume="copy", source_volume="golden")
    assert reply.status == 200
    assert "flatten_volume" in storage.door.calls
    reply = await storage.ask("POST", "/volume", pool="vms", volume="copy", source_volume="golden")
    assert reply.json["code"] == "volume-exists"


async def test_a_second_client_does_not_complete_the_copy_of_the_first(storage: Storage) -> None:
    await storage.make("vms", "golden")
    held = storage.door.hold("clone_volume")
    first = asyncio.ensure_future(
        storage.ask_long("POST", "/volume", pool="vms", volume="copy", source_volume="golden")
    )
    await storage.cluster.advance(1)
    second = await storage.ask("POST", "/volume", pool="vms", volume="copy", source_volume="golden")
    assert second.json["code"] == "volume-exists"
    held.release()
    assert (await first).status == 200


async def test_requests_fail_with_a_sentence_while_ceph_is_away_and_change_no_record(storage: Storage) -> None:
    await storage.make("vms", "one")
    storage.door.away = True
    for method, path, values in INTERRUPTED.values():
        reply = await storage.ask(method, path, **values)
        assert reply.json == {"message": "Ceph did not answer within 30 s.", "code": "ceph-unavailable"}
    assert [volume["name"] for volume in await storage.get("/volume")] == ["one"]


SNAPSHOT = "/volume/snapshot/vms/one/then"
INTERRUPTED: dict[str, tuple[str, str, dict[str, str]]] = {
    "create_pool": ("POST", "/pool", {"pool": "more", "pgs": "8", "replcfg": "copies=1,mincopies=1"}),
    "remove_pool": ("DELETE", f"/pool/vms{REALLY}", {}),
    "create_volume": ("POST", "/volume", {"pool": "vms", "volume": "two", "size": "1G"}),
    "clone_volume": ("POST", "/volume", {"pool": "vms", "volume": "two", "source_volume": "one"}),
    "resize_volume": ("PUT", "/volume/vms/one", {"size": "3G"}),
    "rename_volume": ("PUT", "/volume/vms/one", {"name": "two"}),
    "remove_volume": ("DELETE", "/volume/vms/other", {}),
    "create_snapshot": ("POST", "/volume/snapshot", {"pool": "vms", "volume": "one", "snapshot": "now"}),
    "rename_snapshot": ("PUT", SNAPSHOT, {"name": "before"}),
    "remove_snapshot": ("DELETE", SNAPSHOT, {}),
    "rollback": ("POST", f"{SNAPSHOT}/rollback", {}),
    "set_option": ("POST", "/cluster-option", {"action": "set", "option": "noout"}),
    "osd_out": ("POST", "/osd/2/state", {"state": "out"}),
    "purge_osd": ("DELETE", f"/osd/2{REALLY}", {}),
}


@pytest.mark.parametrize("done", [False, True], ids=["not yet", "done but not reported"])
@pytest.mark.parametrize("verb", INTERRUPTED)
async def test_a_killed_agent_is_reported_and_the_next_refresh_matches_ceph(
    storage: Storage, verb: str, done: bool
) -> None:
    for name in ("one", "other"):
        await storage.make("vms", name)
    await storage.ask("POST", "/volume/snapshot", pool="vms", volume="one", snapshot="then")
    held = storage.door.hold_answer(verb) if done else storage.door.hold(verb)
    method, path, values = INTERRUPTED[verb]
    asking = asyncio.ensure_future(storage.ask_long(method, path, **values))
    while not held.waiting:
        assert not asking.done(), asking.result().body
        await storage.cluster.advance(0.1)
    await storage.cluster.kill_agent("hv1")
    reply = await asking
    assert (reply.status, reply.json["code"]) == (510, "node-not-running")
    held.release()
    await storage.refresh()
    assert await shown(storage) == await actual(storage)
    reply = await storage.ask_long(method, path, **values)
    assert reply.status == 200 or reply.json["code"].endswith(("-exists", "-not-found")), reply.body
    assert await shown(storage) == await actual(storage)


async def shown(storage: Storage) -> dict[str, object]:
    """Return what the API shows."""
    return {
        "pools": [pool["name"] for pool in await storage.get("/pool")],
        "volumes": [
            (each["name"], each["stats"]["size_bytes"], each["parent"]) for each in await storage.get("/volume")
        ],
        "snapshots": [each["snapshot"] for each in await storage.get("/volume/snapshot")],
        "options": set((await storage.get("/status"))["options"]),
        "osds": [(each["id"], each["stats"]["in"]) for each in await storage.get("/osd")],
    }


async def actual(storage: Storage) -> dict[str, object]:
    """Return what is in Ceph."""
    pools = [pool.name for pool in await storage.ceph.pools()]
    volumes = [each for pool in pools for each in await storage.ceph.volumes(pool)]
    return {
        "pools": pools,
        "volumes": [(each.name, each.size, each.parent) for each in volumes],
        "snapshots": [snapshot for each in volumes for snapshot in each.snapshots],
        "options": await storage.ceph.options(),
        "osds": [(str(osd.id), int(osd.in_)) for osd in await storage.ceph.osds()],
    }


async def test_a_lost_lease_is_reported_soon_and_the_next_refresh_matches_ceph(storage: Storage) -> None:
    storage.door.answers["safe_to_destroy"] = frozenset()
    removing = asyncio.ensure_future(storage.ask_long("DELETE", f"/osd/2{REALLY}"))
    await storage.cluster.advance(10)
    await assign_primary(storage.context.store, "hv2")
    await storage.cluster.advance(1)
    assert (await removing).json["code"] == "lease-lost"
    await storage.refresh()
    assert await shown(storage) == await actual(storage)
    assert (await storage.get("/osd/2"))[0]["progress"] is None
    del storage.door.answers["safe_to_destroy"]
    assert (await storage.ask_long("DELETE", f"/osd/2{REALLY}")).status == 200


# OSDs


async def test_an_osd_is_made_by_the_node_that_has_the_device(storage: Storage) -> None:
    reply = await storage.ask("POST", "/osd", node="hv2", device="/dev/hv2/second", weight="1.5")
    assert reply.json == {"message": "OSD 3 added on device '/dev/hv2/second' of node 'hv2'."}
    (osd,) = await storage.get("/osd/3")
    assert (osd["stats"]["node"], osd["stats"]["weight"], osd["stats"]["up"]) == ("hv2", 1.5, 1)
    again = await storage.ask("POST", "/osd", node="hv2", device="/dev/hv2/second", weight="1.5")
    assert again.json["code"] == "device-refused"


async def test_an_osd_is_drained_before_it_is_destroyed(storage: Storage) -> None:
    storage.door.answers["safe_to_destroy"] = frozenset()
    removing = asyncio.ensure_future(storage.ask_long("DELETE", f"/osd/2{REALLY}"))
    await storage.cluster.advance(60)
    (osd,) = await storage.get("/osd/2")
    assert (osd["stats"]["in"], osd["stats"]["up"]) == (0, 1)
    assert osd["progress"].startswith("draining: ")
    assert not removing.done()
    assert (await storage.ask("DELETE", f"/osd/2{REALLY}")).json["code"] == "osd-busy"
    assert (await storage.ask("POST", "/volume", pool="vms", volume="one", size="1G")).status == 200, "it blocks others"
    del storage.door.answers["safe_to_destroy"]
    reply = await removing
    assert reply.json == {"message": "OSD 2 removed."}
    assert [osd["id"] for osd in await storage.get("/osd")] == ["0", "1"]
    assert storage.door.calls.index("osd_out") < storage.door.calls.index("purge_osd")


async def test_an_error_does_not_make_an_osd_safe_to_destroy(storage: Storage) -> None:
    storage.door.failing["safe_to_destroy"] = lambda osds: CephError("Ceph failed: the mgr is restarting.")
    removing = asyncio.ensure_future(storage.ask_long("DELETE", f"/osd/2{REALLY}"))
    await storage.cluster.advance(60)
    assert not removing.done()
    assert (await storage.get("/osd/2"))[0]["progress"] == "draining: Ceph failed: the mgr is restarting."
    storage.door.failing.clear()
    assert (await removing).status == 200


@pytest.mark.parametrize(
    ("state", "up", "safe"),
    [
        ("active+clean", True, True),
        ("active+clean+scrubbing+deep", True, True),
        ("active+recovering+degraded", True, False),
        ("active+undersized+degraded", True, False),
        ("active+undersized+degraded", False, True),
        ("active+recovery_unfound+degraded", False, False),
        ("stale+active+clean", True, False),
        ("stale+active+clean", False, False),
        ("down", False, False),
    ],
)
async def test_an_osd_that_ceph_calls_safe_is_kept_while_its_data_may_be_needed(
    storage: Storage, state: str, up: bool, safe: bool
) -> None:
    if not up:
        storage.ceph.mark(2, up=False)
    status = await storage.ceph.status()
    storage.door.answers["status"] = dataclasses.replace(status, pgs_by_state={"active+clean": 7, state: 1})
    removing = asyncio.ensure_future(storage.ask_long("DELETE", f"/osd/2{REALLY}"))
    await storage.cluster.advance(60)
    assert removing.done() == safe
    assert ("purge_osd" in storage.door.calls) == safe
    del storage.door.answers["status"]
    assert (await removing).status == 200


async def test_an_osd_that_is_set_in_again_is_not_removed(storage: Storage) -> None:
    storage.door.answers["safe_to_destroy"] = frozenset()
    removing = asyncio.ensure_future(storage.ask_long("DELETE", f"/osd/2{REALLY}"))
    await storage.cluster.advance(10)
    assert (await storage.ask("POST", "/osd/2/state", state="in")).status == 200
    assert (await removing).json["code"] == "osd-in"
    (osd,) = await storage.get("/osd/2")
    assert (osd["stats"]["in"], osd["progress"]) == (1, None)


async def test_a_removal_without_confirmation_changes_nothing(storage: Storage) -> None:
    await storage.make("vms", "one")
    storage.door.calls.clear()
    for path in ("/osd/2", "/pool/vms", "/osd/2?yes_i_really_mean_it=no"):
        assert (await storage.ask("DELETE", path)).json["code"] == "not-confirmed"
    assert not {"osd_out", "purge_osd", "remove_pool"} & set(storage.door.calls)


async def test_an_osd_of_a_node_without_agent_is_removed_only_if_it_is_down(storage: Storage) -> None:
    await storage.cluster.kill_agent("hv3")
    await storage.cluster.advance(1)
    reply = await storage.ask("DELETE", f"/osd/2{REALLY}")
    assert reply.json["code"] == "node-not-running"
    assert "osd_out" not in storage.door.calls
    storage.ceph.mark(2, up=False)
    reply = await storage.ask_long("DELETE", f"/osd/2{REALLY}")
    assert reply.json == {
        "message": "OSD 2 removed.",
        "warnings": ["The device of OSD 2 was not wiped: the agent of node 'hv3' does not run."],
    }


async def test_an_osd_is_purged_when_the_monitors_notice_that_it_is_down(storage: Storage) -> None:
    tries: list[int] = []

    def busy(osd: int) -> Exception | None:
        tries.append(osd)
        return InUse("OSD", f"purge OSD {osd}", "it is not down") if len(tries) < 4 else None

    storage.door.failing["purge_osd"] = busy
    assert (await storage.ask_long("DELETE", f"/osd/2{REALLY}")).status == 200
    assert tries == [2] * 4


async def test_a_removal_can_be_repeated_after_its_primary_was_killed(storage: Storage) -> None:
    storage.door.answers["safe_to_destroy"] = frozenset()
    removing = asyncio.ensure_future(storage.ask_long("DELETE", f"/osd/2{REALLY}"))
    await storage.cluster.advance(10)
    await storage.cluster.kill_agent("hv1")
    assert (await removing).json["code"] == "node-not-running"
    await storage.refresh()
    (osd,) = await storage.get("/osd/2")
    assert (osd["stats"]["in"], osd["progress"]) == (0, None)
    del storage.door.answers["safe_to_destroy"]
    assert (await storage.ask_long("DELETE", f"/osd/2{REALLY}")).status == 200


async def test_an_osd_that_does_not_exist_is_not_found(storage: Storage) -> None:
    for osd in ("9", "09", "x", "-1", "1e3", "99999999999"):
        for method, path, values in (
            ("GET", f"/osd/{osd}", {}),
            ("DELETE", f"/osd/{osd}{REALLY}", {}),
            ("POST", f"/osd/{osd}/state", {"state": "out"}),
        ):
            assert (await storage.ask(method, path, **values)).json["code"] == "osd-not-found"
    assert len(storage.context.store.all(Osd)) == 3


async def test_removing_a_pool_removes_only_its_own_volumes(storage: Storage) -> None:
    assert (await storage.ask("POST", "/pool", pool="more", pgs="8", replcfg="copies=1,mincopies=1")).status == 200
    for pool in ("vms", "more"):
        await storage.make(pool, "one")
    assert (await storage.ask("DELETE", f"/pool/more{REALLY}")).status == 200
    assert [each.path for each in storage.context.store.all(Volume)] == ["/ceph-volumes/vms/one"]
