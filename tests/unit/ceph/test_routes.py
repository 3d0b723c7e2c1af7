"""The storage endpoints: their arguments, errors and replies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pvcd import PvcdError
from pvcd_plugins.ceph import service
from pvcd_plugins.ceph.params import Replication, read_replication, read_size
from pvcd_plugins.ceph.views import human
from tests.unit.ceph.conftest import Storage

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1073741824", GIB),
        ("1", 1),
        ("512B", 512),
        ("4096K", 4 << 20),
        ("4096M", 4 * GIB),
        ("20G", 20 * GIB),
        ("20g", 20 * GIB),
        ("3T", 3 << 40),
        ("1P", 1 << 50),
    ],
)
def test_a_size_is_a_number_with_an_optional_unit(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0G", "-1G", "1.5G", "1 G", "G", "1GB", "1E", "0x10", "1e9", "٣G", "9" * 21])
async def test_an_invalid_size_is_refused(storage: Storage, text: str) -> None:
    with pytest.raises(ValueError, match="must be a whole number with an optional unit"):
        read_size(text)
    reply = await storage.ask("POST", "/volume", pool="vms", volume="one", size=text)
    assert (reply.status, reply.json["code"]) == (510, "invalid-value")
    assert "size" in reply.json["message"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (20 * GIB, "20G"),
        (4 * GIB, "4096M"),
        (GIB, "1024M"),
        (3 << 40, "3072G"),
        (0, "0B"),
        (9999, "9999B"),
        (10000, "10K"),
        (20 * GIB + 1, "21G"),
        (1 << 63, "8192P"),
        (1 << 70, "1048576P"),
    ],
)
def test_a_size_for_people_has_at_most_four_digits_and_is_rounded_up(size: int, text: str) -> None:
    assert human(size) == text


@pytest.mark.parametrize("text", ["copies=3", "copies=3,mincopies=2,x=1", "copies=-1,mincopies=1", "3,2", "copies=a"])
async def test_an_invalid_replication_is_refused(storage: Storage, text: str) -> None:
    assert read_replication("copies=2,mincopies=1") == Replication(2, 1)
    reply = await storage.ask("POST", "/pool", pool="more", pgs="8", replcfg=text)
    assert "replcfg must be copies=N,mincopies=M" in reply.json["message"]


@pytest.mark.parametrize("name", ["vms/../x", "-p", " -p", "a@b", "a,b", "..", "a\tb", "ä", "", " ", "x" * 129])
async def test_a_hostile_name_is_refused_with_a_sentence_and_does_not_reach_ceph(storage: Storage, name: str) -> None:
    await storage.make("vms", "one")
    storage.door.calls.clear()
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/pool", {"pool": name, "pgs": "8"}),
        ("POST", "/volume", {"pool": "vms", "volume": name, "size": "1G"}),
        ("POST", "/volume", {"pool": name, "volume": "two", "size": "1G"}),
        ("POST", "/volume", {"pool": "vms", "volume": "two", "source_volume": name}),
        ("PUT", "/volume/vms/one", {"name": name}),
        ("POST", "/volume/snapshot", {"pool": "vms", "volume": "one", "snapshot": name}),
        ("POST", "/volume/snapshot", {"pool": "vms", "volume": name, "snapshot": "now"}),
        ("POST", "/cluster-option", {"action": "set", "option": name}),
        ("POST", "/cluster-option", {"action": name, "option": "noout"}),
        ("POST", "/osd", {"node": "hv1", "device": f"/dev/{name}/..", "weight": "1"}),
    ]
    for method, path, values in requests:
        reply = await storage.ask(method, path, **values)
        assert (reply.status, reply.json["code"]) == (510, "invalid-value"), (path, values)
    assert [each for each in storage.door.calls if each.startswith(("create", "clone", "rename", "set"))] == []


async def test_a_space_in_a_name_is_read_as_the_plus_of_a_form(storage: Storage) -> None:
    assert (await storage.ask("POST", "/volume", pool="vms", volume="one two", size="1G")).status == 200
    assert [volume.name for volume in await storage.ceph.volumes("vms")] == ["one+two"]


@pytest.mark.parametrize(
    "path", ["vms/one%20two", "vms%2F..%2Fx/one", "vms/-p", "vms/a%40b", "vms/one%2Ftwo", "vms%2Fone/x", "-p/one"]
)
async def test_a_hostile_path_finds_nothing(storage: Storage, path: str) -> None:
    await storage.make("vms", "one")
    for method, values in (("GET", {}), ("PUT", {"size": "2G"}), ("DELETE", {})):
        reply = await storage.ask(method, f"/volume/{path}", **values)
        assert reply.status == 510
        assert reply.json["code"] in ("volume-not-found", "pool-not-found", "invalid-value")
    assert len(await storage.ceph.volumes("vms")) == 1


@pytest.mark.parametrize(
    "device", ["sdb", "/etc/passwd", "/dev", "/dev/", "/dev/../etc/passwd", "/dev/sd b", "/dev/-a"]
)
async def test_a_device_must_be_a_path_below_dev(storage: Storage, device: str) -> None:
    reply = await storage.ask("POST", "/osd", node="hv1", device=device, weight="1")
    assert "device must be a path below /dev" in reply.json["message"]


async def test_a_change_of_a_volume_requires_either_name_or_size(storage: Storage) -> None:
    await storage.make("vms", "one")
    for values in ({}, {"name": "two", "size": "2G"}):
        reply = await storage.ask("PUT", "/volume/vms/one", **values)
        assert reply.json["code"] == "invalid-value"
    reply = await storage.ask("POST", "/volume", pool="vms", volume="two")
    assert reply.json["message"] == "A new volume requires size or source_volume."


async def test_status_and_df_have_the_text_of_ceph_and_figures(storage: Storage) -> None:
    status, df = await storage.get("/status"), await storage.get("/df")
    assert await storage.get("") == status
    assert (status["type"], df["type"]) == ("status", "utilization")
    assert status["primary_node"] == df["primary_node"] == "hv1"
    assert status["ceph_data"] == (await storage.ceph.status()).text
    assert df["ceph_data"] == (await storage.ceph.utilization()).text
    assert (status["osds"], status["osds_up"]) == (3, 3)
    assert df["total_bytes"] > 0
    reply = await storage.cluster.request("GET", "/api/v1/storage")
    assert "Ceph" in reply.json["message"]


async def test_an_option_is_set_and_unset(storage: Storage) -> None:
    for action, options in (("set", ["noout"]), ("unset", [])):
        reply = await storage.ask("POST", "/cluster-option", action=action, option="noout")
        assert reply.json == {"message": f"Option 'noout' {action}."}
        assert (await storage.get("/status"))["options"] == options
    reply = await storage.ask("POST", "/cluster-option", action="reset", option="noout")
    assert reply.json["code"] == "invalid-value"


async def test_the_shape_of_an_osd(storage: Storage) -> None:
    (osd,) = await storage.get("/osd/0")
    assert set(osd) == {"id", "stats", "progress", "updated"}
    assert osd["id"] == "0"
    stats = osd["stats"]
    assert (stats["up"], stats["in"], stats["node"]) == (1, 1, "hv1")
    assert type(stats["used"]) is type(stats["avail"]) is type(stats["state"]) is str
    assert {"uuid", "primary_affinity", "utilization", "var", "pgs", "kb", "weight", "reweight"} < set(stats)
    assert {"wr_ops", "wr_data", "rd_ops", "rd_data"} < set(stats)
    assert await storage.get("/osd/0/state") == {"id": "0", "in": 1, "up": 1}
    assert (await storage.ask("POST", "/osd/0/state", state="out")).json == {"message": "OSD 0 set out."}
    assert await storage.get("/osd/0/state") == {"id": "0", "in": 0, "up": 1}


async def test_the_shape_of_a_pool(storage: Storage) -> None:
    (pool,) = await storage.get("/pool/vms")
    assert (pool["name"], pool["applications"], pool["failed_reason"]) == ("vms", ["rbd"], None)
    assert set(pool["stats"]) == {
        *("id", "free_bytes", "used_bytes", "used_percent", "num_objects", "num_object_clones", "num_object_copies"),
        *("num_objects_missing_on_primary", "num_objects_unfound", "num_objects_degraded"),
        *("read_ops", "read_bytes", "write_ops", "write_bytes"),
    }


async def test_the_shape_of_a_volume_and_a_snapshot(storage: Storage) -> None:
    await storage.make("vms", "web1_sda", "20G")
    assert (
        await storage.ask("POST", "/volume/snapshot", pool="vms", volume="web1_sda", snapshot="before")
    ).status == 200
    (volume,) = await storage.get("/volume/vms/web1_sda")
    assert (volume["name"], volume["pool"], volume["parent"]) == ("web1_sda", "vms", None)
    stats = volume["stats"]
    assert (stats["name"], stats["size"], stats["size_bytes"]) == ("web1_sda", "20G", 20 * GIB)
    assert (stats["objects"], stats["snapshot_count"], stats["format"]) == (5120, 1, 2)
    assert isinstance(stats["features"], list)
    (snapshot,) = await storage.get("/volume/snapshot/vms/web1_sda/before")
    shown = {key: snapshot[key] for key in ("snapshot", "volume", "pool", "size", "size_bytes", "protected")}
    assert shown == {
        **{"snapshot": "before", "volume": "web1_sda", "pool": "vms"},
        **{"size": "20G", "size_bytes": 20 * GIB, "protected": False},
    }


async def test_lists_are_filtered_and_sorted(storage: Storage) -> None:
    assert (await storage.ask("POST", "/pool", pool="more", pgs="8", replcfg="copies=2,mincopies=1")).status == 200
    for pool, volume in (("vms", "web2"), ("vms", "web1"), ("vms", "db1"), ("more", "web1")):
        await storage.make(pool, volume)
        values = {"pool": pool, "volume": volume, "snapshot": "now"}
        assert (await storage.ask("POST", "/volume/snapshot", **values)).status == 200

    async def volumes(query: str) -> list[str]:
        return [f"{each['pool']}/{each['name']}" for each in await storage.get(f"/volume{query}")]

    async def snapshots(query: str) -> list[str]:
        return [f"{each['pool']}/{each['volume']}" for each in await storage.get(f"/volume/snapshot{query}")]

    everything = ["more/web1", "vms/db1", "vms/web1", "vms/web2"]
    for shown in (volumes, snapshots):
        assert await shown("") == everything
        assert await shown("?pool=vms") == everything[1:]
        assert await shown("?pool=nowhere") == []
        assert await shown("?limit=nothing") == []
    assert await volumes("?limit=web1") == ["more/web1", "vms/web1"]
    assert await volumes("?limit=^vms/web") == ["vms/web1", "vms/web2"]
    assert await volumes("?pool=vms&limit=^web") == ["vms/web1", "vms/web2"]
    assert await snapshots("?volume=web1") == ["more/web1", "vms/web1"]
    assert await snapshots("?pool=vms&volume=web1&limit=^now$") == ["vms/web1"]
    assert await snapshots("?limit=web2@now") == ["vms/web2"]
    assert [pool["name"] for pool in await storage.get("/pool")] == ["more", "vms"]
    assert [pool["name"] for pool in await storage.get("/pool?limit=^m")] == ["more"]
    assert [osd["id"] for osd in await storage.get("/osd?limit=^[12]$")] == ["1", "2"]


async def test_one_element_is_found_by_its_exact_name_only(storage: Storage) -> None:
    await storage.make("vms", "web10")
    for path, code in (
        ("/volume/vms/web1", "volume-not-found"),
        ("/volume/vm/web10", "volume-not-found"),
        ("/volume/snapshot/vms/web10/x", "snapshot-not-found"),
        ("/pool/vm", "pool-not-found"),
    ):
        assert (await storage.ask("GET", path)).json["code"] == code


async def test_what_keeps_a_volume_is_known_without_removing_it(storage: Storage) -> None:
    async def reason() -> str | None:
        try:
            await service.check_removal(storage.context, "vms", "one")
        except PvcdError as error:
            return error.code
        return None

    await storage.make("vms", "one")
    asking = asyncio.ensure_future(reason())
    await storage.cluster.advance(0.1)
    assert await asking is None
    await storage.ceph.create_snapshot("vms", "one", "now")
    asking = asyncio.ensure_future(reason())
    await storage.cluster.advance(0.1)
    assert await asking == "volume-has-snapshots"
    await storage.ceph.remove_snapshot("vms", "one", "now")
    storage.ceph.open_volume("vms", "one")
    asking = asyncio.ensure_future(reason())
    await storage.cluster.advance(0.1)
    assert await asking == "volume-in-use"
    assert [volume.name for volume in await storage.ceph.volumes("vms")] == ["one"]


async def test_a_snapshot_is_renamed_rolled_back_and_removed(storage: Storage) -> None:
    await storage.make("vms", "one")
    path = "/volume/snapshot/vms/one"
    values = {"pool": "vms", "volume": "one", "snapshot": "now"}
    assert (await storage.ask("POST", "/volume/snapshot", **values)).status == 200
    assert (await storage.ask("POST", "/volume/snapshot", **values)).json["code"] == "snapshot-exists"
    assert (await storage.ask("PUT", f"{path}/now", name="then")).status == 200
    assert (await storage.ask("PUT", f"{path}/now", name="then")).json["code"] == "snapshot-not-found"
    assert (await storage.ask("PUT", "/volume/vms/one", size="2G")).status == 200
    assert (await storage.ask("POST", f"{path}/then/rollback")).status == 200
    assert (await storage.get("/volume/vms/one"))[0]["stats"]["size_bytes"] == GIB
    assert (await storage.ask("DELETE", "/volume/vms/one")).json["code"] == "volume-has-snapshots"
    assert (await storage.ask("DELETE", f"{path}/then")).status == 200
    assert await storage.get("/volume/snapshot") == []
    assert (await storage.ask("DELETE", "/volume/vms/one")).status == 200
