"""The answers of the door to Ceph, as plain data. All sizes are in bytes unless their name says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the cluster, from `ceph status`."""

    text: str
    """The output of `ceph status`."""
    health: str
    """HEALTH_OK, HEALTH_WARN or HEALTH_ERR."""
    checks: Mapping[str, str]
    """Failing health checks: name -> summary."""
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
    """Fraction of all objects that has too few copies, 0 to 1."""
    misplaced: float
    """Fraction of all objects that is moving to another OSD, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Utilization:
    """The used and free space of the cluster, from `rados df`."""

    text: str
    """The output of `rados df`."""
    used_bytes: int
    available_bytes: int
    total_bytes: int
    objects: int


@dataclass(frozen=True, slots=True)
class Monitors:
    """The addresses of the cluster, from `ceph mon dump`."""

    fsid: str
    addresses: tuple[tuple[str, int], ...]
    """The host and port of each monitor."""


@dataclass(frozen=True, slots=True)
class Osd:
    """One OSD."""

    id: int
    uuid: str
    node: str | None
    """Its host in the CRUSH map; None for one that never started."""
    up: bool
    in_: bool
    primary_affinity: float
    utilization: float
    """Used part of its space, in percent."""
    var: float
    """Its utilization relative to the mean of all OSDs."""
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
    """Per second, like the following three; None until it was measured twice, and while the OSD does not answer."""
    write_bytes: float | None
    read_ops: float | None
    read_bytes: float | None
    state: tuple[str, ...]
    """Flags of Ceph such as `exists` and `up`."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool, of any application; volumes are in pools of the application `rbd`."""

    name: str
    id: int
    pgs: int
    copies: int
    mincopies: int
    """The copies that must be available for reads and writes."""
    applications: tuple[str, ...]
    """`rbd` for pools of volumes; empty if the creation was interrupted."""
    free_bytes: int
    """Data that can still be stored, not counting its copies."""
    used_bytes: int
    """On the OSDs, all copies included."""
    used_percent: float
    """A fraction, 0 to 1, despite its name in Ceph."""
    num_objects: int
    num_object_clones: int
    num_object_copies: int
    num_objects_missing_on_primary: int
    num_objects_unfound: int
    num_objects_degraded: int
    read_ops: int
    """Since the pool was created, like the following three."""
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
    """The `pool/volume@snapshot` that it still depends on, such as after an interrupted copy."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot of a volume."""

    pool: str
    volume: str
    name: str
    id: int
    size: int
    """The size of the volume when the snapshot was taken."""
    protected: bool
    timestamp: str
    """As Ceph writes it; empty in a list of all volumes."""


@dataclass(frozen=True, slots=True)
class ListedVolume:
    """A volume as the list of its pool shows it."""

    pool: str
    name: str
    id: str
    """Empty for an incomplete volume: only its name exists."""
    size: int
    parent: str | None
    locked: bool
    """True while a client holds a lock; every client that writes holds one."""
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
    """A client that has a volume open. A killed client is still listed for up to 30 s."""

    client: str
    """Such as `client.4123`."""
    address: str


@dataclass(frozen=True, slots=True)
class Device:
    """A block device of this node."""

    path: str
    size: int
    refusal: str | None
    """Why it cannot become an OSD, such as `it is read-only`; None if it can."""
