"""The JSON of Ceph -> the answers of the door: pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pvcd import programs
from pvcd_plugins.ceph.cluster import (
    OPTIONS,
    CephError,
    ListedVolume,
    Lock,
    Monitors,
    Osd,
    Pool,
    Snapshot,
    Status,
    Utilization,
    Volume,
    Watcher,
    is_name,
)

Json = Mapping[str, Any]
Counters = tuple[float, float, float, float]
"""Totals of an OSD since its start: write operations, bytes written, read operations, bytes read."""


def text(result: programs.Result) -> str:
    """Return what a program wrote to stdout."""
    return result.stdout.decode(errors="replace")


def document(result: programs.Result) -> Any:
    """Return the JSON that a program wrote to stdout."""
    try:
        return json.loads(result.stdout)
    except ValueError:
        raise CephError(f"Ceph did not answer in JSON: {text(result)[:100]!r}.") from None


def options(dump: Json) -> frozenset[str]:
    """Read `ceph osd dump`."""
    flags = set(dump["flags_set"])
    # Ceph lists the flag `pause` as `pauserd` and `pausewr`.
    return frozenset(flags.intersection(OPTIONS) | ({"pause"} if "pauserd" in flags else set()))


def monitors(dump: Json) -> Monitors:
    """Read `ceph mon dump`: the first address of each monitor, which clients prefer."""
    addresses = (each["public_addrs"]["addrvec"][0]["addr"] for each in dump["mons"])
    split = (address.rpartition(":") for address in addresses)
    return Monitors(fsid=dump["fsid"], addresses=tuple((host.strip("[]"), int(port)) for host, _, port in split))


def status(text: str, answer: Json) -> Status:
    """Read `ceph status`."""
    osds, pgs = answer["osdmap"], answer["pgmap"]
    return Status(
        text=text,
        health=answer["health"]["status"],
        checks={name: check["summary"]["message"] for name, check in answer["health"]["checks"].items()},
        monitors=answer["monmap"]["num_mons"],
        monitors_in_quorum=len(answer["quorum_names"]),
        osds=osds["num_osds"],
        osds_up=osds["num_up_osds"],
        osds_in=osds["num_in_osds"],
        pgs=pgs["num_pgs"],
        pgs_by_state={each["state_name"]: each["count"] for each in pgs["pgs_by_state"]},
        used_bytes=pgs["bytes_used"],
        available_bytes=pgs["bytes_avail"],
        total_bytes=pgs["bytes_total"],
        degraded=pgs.get("degraded_ratio", 0.0),
        misplaced=pgs.get("misplaced_ratio", 0.0),
    )


def utilization(text: str, answer: Json) -> Utilization:
    """Read `rados df`, whose totals are in KiB."""
    return Utilization(
        text=text,
        used_bytes=int(answer["total_used"]) * 1024,
        available_bytes=int(answer["total_avail"]) * 1024,
        total_bytes=int(answer["total_space"]) * 1024,
        objects=int(answer["total_objects"]),
    )


def osds(dump: Json, tree: Json, rates: Mapping[int, Counters]) -> list[Osd]:
    """Read `ceph osd dump` and `ceph osd df tree`, and add the rates."""
    nodes = {each["id"]: each for each in (*tree["nodes"], *tree["stray"])}
    hosts = {
        child: each["name"] for each in nodes.values() if each["type"] == "host" for child in each.get("children", ())
    }
    # An OSD that was made or purged between the two requests is in one answer only.
    known = (each for each in dump["osds"] if each["osd"] in nodes)
    return sorted((_osd(each, nodes[each["osd"]], hosts, rates) for each in known), key=lambda osd: osd.id)


def _osd(dumped: Json, node: Json, hosts: Mapping[int, str], rates: Mapping[int, Counters]) -> Osd:
    number = dumped["osd"]
    rate = rates.get(number, (None,) * 4)
    return Osd(
        id=number,
        uuid=dumped["uuid"],
        node=hosts.get(number),
        up=bool(dumped["up"]),
        in_=bool(dumped["in"]),
        primary_affinity=float(dumped["primary_affinity"]),
        utilization=float(node["utilization"]),
        var=float(node["var"]),
        pgs=node["pgs"],
        kb=node["kb"],
        weight=float(node["crush_weight"]),
        reweight=float(node["reweight"]),
        used_bytes=node["kb_used"] * 1024,
        available_bytes=node["kb_avail"] * 1024,
        write_ops=rate[0],
        write_bytes=rate[1],
        read_ops=rate[2],
        read_bytes=rate[3],
        state=tuple(dumped["state"]),
    )


def counters(text: str, osds: Collection[int]) -> dict[int, Counters]:
    """Read `ceph tell osd.* perf dump osd`: one document per OSD that answered, unnamed if there is one OSD only."""
    if len(osds) == 1 and text.lstrip().startswith("{"):
        return dict.fromkeys(osds, _counted(json.loads(text)))
    names = re.finditer(r"^osd\.(\d+): (?=\{)", text, re.MULTILINE)
    return {int(name[1]): _counted(json.JSONDecoder().raw_decode(text, name.end())[0]) for name in names}


def _counted(answer: Json) -> Counters:
    osd = answer["osd"]
    return osd["op_w"], osd["op_w_in_bytes"], osd["op_r"], osd["op_r_out_bytes"]


def rates(before: Mapping[int, Counters], now: Mapping[int, Counters], seconds: float) -> dict[int, Counters]:
    """Return the rates per second between two measurements; none for an OSD that restarted in between."""
    found = {}
    for osd in before.keys() & now.keys():
        grown = [new - old for new, old in zip(now[osd], before[osd], strict=True)]
        if min(grown) >= 0 and seconds > 0:
            found[osd] = (grown[0] / seconds, grown[1] / seconds, grown[2] / seconds, grown[3] / seconds)
    return found


def pools(dump: Json, df: Json, objects: Json) -> list[Pool]:
    """Read `ceph osd dump`, `ceph df` and `rados df`."""
    stored = {each["name"]: each["stats"] for each in df["pools"]}
    counted = {each["name"]: each for each in objects["pools"]}
    # A pool that was created or removed between the requests is not in all answers.
    known = (each for each in dump["pools"] if each["pool_name"] in stored.keys() & counted.keys())
    named = (each for each in known if is_name(each["pool_name"]))
    return sorted((_pool(each, stored, counted) for each in named), key=lambda pool: pool.name)


def _pool(dumped: Json, stored: Mapping[str, Json], counted: Mapping[str, Json]) -> Pool:
    name = dumped["pool_name"]
    space, count = stored[name], counted[name]
    return Pool(
        name=name,
        id=dumped["pool"],
        pgs=dumped["pg_num_target"],
        copies=dumped["size"],
        mincopies=dumped["min_size"],
        applications=tuple(sorted(dumped["application_metadata"])),
        free_bytes=space["max_avail"],
        used_bytes=space["bytes_used"],
        used_percent=float(space["percent_used"]),
        num_objects=count["num_objects"],
        num_object_clones=count["num_object_clones"],
        num_object_copies=count["num_object_copies"],
        num_objects_missing_on_primary=count["num_objects_missing_on_primary"],
        num_objects_unfound=count["num_objects_unfound"],
        num_objects_degraded=count["num_objects_degraded"],
        read_ops=count["read_ops"],
        read_bytes=count["read_bytes"],
        write_ops=count["write_ops"],
        write_bytes=count["write_bytes"],
    )


def volumes(pool: str, rows: Iterable[Json]) -> list[ListedVolume]:
    """Read `rbd ls -l`, which has a row for each image and each snapshot."""
    images: dict[str, Json] = {}
    snapshots: dict[str, list[str]] = {}
    for row in rows:
        if "snapshot" not in row:
            images[row["image"]] = row
        elif is_name(row["snapshot"]):
            snapshots.setdefault(row["image"], []).append(row["snapshot"])
    return [
        ListedVolume(
            pool=pool,
            name=name,
            id=row["id"],
            size=row["size"],
            parent=_parent(row),
            locked="lock_type" in row,
            snapshots=tuple(sorted(snapshots.get(name, ()))),
        )
        for name, row in sorted(images.items())
        if is_name(name)
    ]


def unopened(result: programs.Result) -> set[str]:
    """Return the names that `rbd ls -l` could not open because there is no image."""
    found = re.findall(r"^rbd: error opening (.+): \(2\)", result.stderr.decode(errors="replace"), re.MULTILINE)
    return {name for name in found if is_name(name)}


def image_id(entry: programs.Result) -> str:
    """Read the id of an image from its entry in the list of its pool: four bytes of length, and the id."""
    return entry.stdout[4:].decode(errors="replace")


def incomplete(pool: str, name: str) -> ListedVolume:
    """Return the entry of an incomplete volume in the list of its pool."""
    return ListedVolume(pool=pool, name=name, id="", size=0, parent=None, locked=False, snapshots=())


def volume(pool: str, info: Json) -> Volume:
    """Read `rbd info`."""
    return Volume(
        pool=pool,
        name=info["name"],
        id=info["id"],
        size=info["size"],
        objects=info["objects"],
        order=info["order"],
        object_size=info["object_size"],
        snapshot_count=info["snapshot_count"],
        block_name_prefix=info["block_name_prefix"],
        format=info["format"],
        features=tuple(info["features"]),
        op_features=tuple(info["op_features"]),
        flags=tuple(info["flags"]),
        create_timestamp=info.get("create_timestamp", ""),
        access_timestamp=info.get("access_timestamp", ""),
        modify_timestamp=info.get("modify_timestamp", ""),
        parent=_parent(info),
    )


def _parent(row: Json) -> str | None:
    parent = row.get("parent")
    return f"{parent['pool']}/{parent['image']}@{parent['snapshot']}" if parent else None


def snapshots(pool: str, volume: str, rows: Iterable[Json]) -> list[Snapshot]:
    """Read `rbd snap ls`."""
    found = (
        Snapshot(
            pool=pool,
            volume=volume,
            name=row["name"],
            id=row["id"],
            size=row["size"],
            protected=row["protected"] == "true",
            timestamp=row["timestamp"],
        )
        for row in rows
        if is_name(row["name"])
    )
    return sorted(found, key=lambda snapshot: snapshot.name)


def locks(rows: Iterable[Json]) -> list[Lock]:
    """Read `rbd lock ls`."""
    return [Lock(row["id"], row["locker"], row["address"]) for row in rows]


def watchers(answer: Json) -> list[Watcher]:
    """Read `rbd status`."""
    return [Watcher(f"client.{each['client']}", each["address"]) for each in answer["watchers"]]
