"""The mirror of Ceph as the API shows it, in the names and shapes that clients know."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, Field

from pvcd import Component, ComponentKey, Context, Encoded, Role, View, primary_of
from pvcd_plugins.ceph.cluster import facts as ceph
from pvcd_plugins.ceph.params import UNITS
from pvcd_plugins.ceph.records import CephStatus, Osd, Pool, Snapshot, Volume

MAX_DIGITS = 4


class CephView(BaseModel):
    """The source and the age of a reply."""

    primary_node: str | None
    ceph_data: str
    """The output of Ceph's program."""
    updated: float | None
    """Time at which Ceph was last reached."""
    failed_reason: str | None
    """Why Ceph was not reached since."""


class StatusView(CephView):
    """The status of Ceph."""

    type: Literal["status"] = "status"
    health: str
    checks: dict[str, str]
    options: list[str]
    monitors: int
    monitors_in_quorum: int
    osds: int
    osds_up: int
    osds_in: int
    pgs: int
    pgs_by_state: dict[str, int]
    used_bytes: int
    available_bytes: int
    total_bytes: int
    degraded: float
    """Fraction of all objects that has too few copies, 0 to 1."""
    misplaced: float
    """Fraction of all objects that is moving to another OSD, 0 to 1."""


class UtilizationView(CephView):
    """The used and free space of Ceph."""

    type: Literal["utilization"] = "utilization"
    used_bytes: int
    available_bytes: int
    total_bytes: int
    objects: int


class OsdStats(BaseModel):
    """The figures of an OSD; rates are per second, and null until they were measured twice."""

    uuid: str
    up: int
    in_: int = Field(serialization_alias="in")
    primary_affinity: float
    utilization: float
    var: float
    pgs: int
    kb: int
    weight: float
    reweight: float
    node: str | None
    used: str
    used_bytes: int
    avail: str
    avail_bytes: int
    wr_ops: float | None
    wr_data: str | None
    wr_bytes: float | None
    rd_ops: float | None
    rd_data: str | None
    rd_bytes: float | None
    state: str


class OsdView(BaseModel):
    """An OSD; `progress` describes its removal, if one is under way."""

    id: str
    stats: OsdStats
    progress: str | None
    updated: float


class OsdState(BaseModel):
    """The state of an OSD, 1 or 0: it takes data (`in`), and its daemon is up (`up`)."""

    id: str
    in_: int = Field(serialization_alias="in")
    up: int


class PoolStats(BaseModel):
    """The figures of a pool; `used_percent` is a fraction, 0 to 1; reads and writes are totals since its creation."""

    id: int
    free_bytes: int
    used_bytes: int
    used_percent: float
    num_objects: int
    num_object_clones: int
    num_object_copies: int
    num_objects_missing_on_primary: int
    num_objects_unfound: int
    num_objects_degraded: int
    read_ops: int
    read_bytes: int
    write_ops: int
    write_bytes: int


class PoolView(BaseModel):
    """A pool; one without `applications` is incomplete and can only be removed."""

    name: str
    stats: PoolStats
    pgs: int
    copies: int
    mincopies: int
    applications: list[str]
    failed_reason: str | None
    """Why its volumes cannot be listed, or which of them are incomplete."""
    updated: float


class VolumeStats(BaseModel):
    """The figures of a volume; those that the list of its pool lacks are null until the next refresh."""

    name: str
    id: str
    size: str
    size_bytes: int
    objects: int | None = None
    order: int | None = None
    object_size: int | None = None
    snapshot_count: int | None = None
    block_name_prefix: str | None = None
    format: int | None = None
    features: list[str] | None = None
    op_features: list[str] | None = None
    flags: list[str] | None = None
    create_timestamp: str | None = None
    access_timestamp: str | None = None
    modify_timestamp: str | None = None


class VolumeView(BaseModel):
    """A volume. One with a `parent` depends on that snapshot, such as an interrupted copy."""

    name: str
    pool: str
    stats: VolumeStats
    parent: str | None
    updated: float


class SnapshotView(BaseModel):
    """A snapshot, with the size of its volume at the time when it was taken."""

    snapshot: str
    volume: str
    pool: str
    size: str | None
    size_bytes: int | None
    protected: bool | None
    timestamp: str | None
    updated: float


VolumeList = Encoded[list[VolumeView]]
"""Encoded volumes."""
SnapshotList = Encoded[list[SnapshotView]]
"""Encoded snapshots."""


def human(size: float) -> str:
    """Return a size in the smallest unit in which it has at most four digits, rounded up: 20G, 4096M."""
    whole = -int(-size // 1)
    for unit in UNITS:
        if whole < 10**MAX_DIGITS or unit == UNITS[-1]:
            break
        whole = -(-whole // 1024)
    return f"{whole}{unit}"


def _source(context: Context, status: CephStatus, text: str) -> dict[str, Any]:
    return {
        "primary_node": primary_of(context.store),
        "ceph_data": text,
        "updated": status.updated,
        "failed_reason": status.failed_reason,
    }


def status_view(context: Context, known: CephStatus) -> StatusView:
    """Return the view of the status."""
    assert known.status is not None  # noqa: S101
    values = asdict(known.status)
    return StatusView(**_source(context, known, values.pop("text")), options=list(known.options), **values)


def utilization_view(context: Context, known: CephStatus) -> UtilizationView:
    """Return the view of the utilization."""
    assert known.utilization is not None  # noqa: S101
    values = asdict(known.utilization)
    return UtilizationView(**_source(context, known, values.pop("text")), **values)


def osd_view(osd: Osd) -> OsdView:
    """Return the view of an OSD."""
    return OsdView(id=str(osd.id), stats=_osd_stats(osd.facts), progress=osd.progress, updated=osd.updated)


def _osd_stats(facts: ceph.Osd) -> OsdStats:
    values = asdict(facts)
    return OsdStats.model_validate(
        values
        | {
            "up": int(facts.up),
            "in_": int(facts.in_),
            "used": human(facts.used_bytes),
            "avail": human(facts.available_bytes),
            "avail_bytes": facts.available_bytes,
            "wr_ops": facts.write_ops,
            "wr_data": None if facts.write_bytes is None else human(facts.write_bytes),
            "wr_bytes": facts.write_bytes,
            "rd_ops": facts.read_ops,
            "rd_data": None if facts.read_bytes is None else human(facts.read_bytes),
            "rd_bytes": facts.read_bytes,
            "state": ",".join(facts.state),
        }
    )


def osd_state(osd: Osd) -> OsdState:
    """Return whether an OSD is in and up."""
    return OsdState(id=str(osd.id), in_=int(osd.facts.in_), up=int(osd.facts.up))


def pool_view(pool: Pool) -> PoolView:
    """Return the view of a pool."""
    facts = pool.facts
    return PoolView(
        name=pool.name,
        stats=PoolStats.model_validate(asdict(facts)),
        pgs=facts.pgs,
        copies=facts.copies,
        mincopies=facts.mincopies,
        applications=list(facts.applications),
        failed_reason=pool.failed_reason,
        updated=pool.updated,
    )


def volume_view(volume: Volume) -> VolumeView:
    """Return the view of a volume; the list of its pool is newer than its `facts`."""
    values = asdict(volume.facts) if volume.facts else {}
    values |= {"name": volume.name, "id": volume.id, "size": human(volume.size), "size_bytes": volume.size}
    return VolumeView(
        name=volume.name,
        pool=volume.pool,
        stats=VolumeStats.model_validate(values),
        parent=volume.parent,
        updated=volume.updated,
    )


def snapshot_view(snapshot: Snapshot) -> SnapshotView:
    """Return the view of a snapshot."""
    facts = snapshot.facts
    return SnapshotView(
        snapshot=snapshot.snapshot,
        volume=snapshot.volume,
        pool=snapshot.pool,
        size=human(facts.size) if facts else None,
        size_bytes=facts.size if facts else None,
        protected=facts.protected if facts else None,
        timestamp=facts.timestamp or None if facts else None,
        updated=snapshot.updated,
    )


@contextlib.asynccontextmanager
async def open_volumes(context: Context) -> AsyncIterator[View[Volume, VolumeView]]:
    """Open the encoded list of all volumes, by pool and name."""
    view = View(context.store, Volume, volume_view, lambda each: (f"{each.pool}/{each.name}", each.name))
    with contextlib.closing(view):
        yield view


def _snapshot_names(snapshot: Snapshot) -> tuple[str, ...]:
    return f"{snapshot.pool}/{snapshot.volume}@{snapshot.snapshot}", snapshot.snapshot


@contextlib.asynccontextmanager
async def open_snapshots(context: Context) -> AsyncIterator[View[Snapshot, SnapshotView]]:
    """Open the encoded list of all snapshots, by pool, volume and name."""
    view = View(context.store, Snapshot, snapshot_view, _snapshot_names)
    with contextlib.closing(view):
        yield view


VOLUMES: ComponentKey[View[Volume, VolumeView]] = ComponentKey("ceph-volumes")
SNAPSHOTS: ComponentKey[View[Snapshot, SnapshotView]] = ComponentKey("ceph-snapshots")
COMPONENTS: list[Component[Any]] = [
    Component(VOLUMES, open_volumes, roles=(Role.API,), in_memory=True),
    Component(SNAPSHOTS, open_snapshots, roles=(Role.API,), in_memory=True),
]
