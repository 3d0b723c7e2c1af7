"""What Ceph says of itself: the door's answers. All sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """How the cluster is, from `ceph status`."""

    text: str
    """What `ceph status` prints."""
    health: str
    """HEALTH_OK, HEALTH_WARN or HEALTH_ERR."""
    checks: Mapping[str, str]
    """What is wrong: the name of each health check and its summary."""
    monitors: int
    monitors_in_quorum: int
    osds: int
    osds_up: int
    osds_in: int
    pgs: int
    pgs_by_state: Mapping[str, int]
    used_bytes: int
    available_bytes: int
    total_bytes: int
    degraded: float
    """The part of all objects that has too few copies, 0 to 1."""
    misplaced: float
    """The part of all objects that is on its way to another OSD, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Utilization:
    """How full the cluster is, from `rados df`."""

    text: str
    """What `rados df` prints."""
    used_bytes: int
    available_bytes: int
    total_bytes: int
    objects: int


@dataclass(frozen=True, slots=True)
class Monitors:
    """Where the cluster is, from `ceph mon dump`."""

    fsid: str
    addresses: tuple[tuple[str, int], ...]
    """The host and port of each monitor."""


@dataclass(frozen=True, slots=True)
class Osd:
    """One OSD."""

    id: int
    uuid: str
    node: str | None
    """The host that the CRUSH map has it on; None for one that never started."""
    up: bool
    in_: bool
    primary_affinity: float
    utilization: float
    """Per cent of its space."""
    var: float
    """Its utilization by the mean of all."""
    pgs: int
    kb: int
    """Its size in KiB."""
    weight: float
    """In the CRUSH map."""
    reweight: float
    """0 to 1; 0 is out."""
    used_bytes: int
    available_bytes: int
    write_ops: float | None
    """Per second, as those that follow; None until it was asked twice, and for one that does not answer."""
    write_bytes: float | None
    read_ops: float | None
    read_bytes: float | None
    state: tuple[str, ...]
    """Ceph's own words, such as exists and up."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool, for whatever application it is; volumes are in those for rbd."""

    name: str
    id: int
    pgs: int
    copies: int
    mincopies: int
    """Copies without which nothing is written or read."""
    applications: tuple[str, ...]
    """`rbd` for ours; nothing for one whose creation was interrupted."""
    free_bytes: int
    """What can still be stored, with all its copies."""
    used_bytes: int
    """On the OSDs, so with all copies."""
    used_percent: float
    """0 to 1."""
    num_objects: int
    num_object_clones: int
    num_object_copies: int
    num_objects_missing_on_primary: int
    num_objects_unfound: int
    num_objects_degraded: int
    read_ops: int
    """Since the pool was made, as those that follow."""
    read_bytes: int
    write_ops: int
    write_bytes: int


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume (an RBD image), from `rbd info`."""

    pool: str
    name: str
    id: str
    size: int
    objects: int
    order: int
    object_size: int
    snapshot_count: int
    block_name_prefix: str
    format: int
    features: tuple[str, ...]
    op_features: tuple[str, ...]
    flags: tuple[str, ...]
    create_timestamp: str
    """As Ceph writes it, such as `Fri Dec 20 10:11:12 2019`."""
    access_timestamp: str
    modify_timestamp: str
    parent: str | None
    """`pool/volume@snapshot` that it still needs, as a clone whose making was interrupted does."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot of a volume."""

    pool: str
    volume: str
    name: str
    id: int
    size: int
    """Of the volume when it was taken."""
    protected: bool
    timestamp: str
    """As Ceph writes it; empty in a list of all volumes."""


@dataclass(frozen=True, slots=True)
class ListedVolume:
    """What the list of a pool says of a volume."""

    pool: str
    name: str
    id: str
    """Empty for one that was made or removed by half only: there is no such volume, but its name is taken."""
    size: int
    parent: str | None
    locked: bool
    """Whether a client holds a lock, as every client that writes does."""
    snapshots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    """A client's lock on a volume."""

    id: str
    locker: str
    """Such as `client.4123`."""
    address: str


@dataclass(frozen=True, slots=True)
class Watcher:
    """A client that has a volume open. One that was killed counts for up to half a minute more."""

    client: str
    """Such as `client.4123`."""
    address: str


@dataclass(frozen=True, slots=True)
class Device:
    """A block device of this node."""

    path: str
    size: int
    refusal: str | None
    """Why it cannot become an OSD: a sentence, or None for one that can."""
