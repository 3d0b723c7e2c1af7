"""The mirror of Ceph for fast reads, which only the primary writes; Ceph itself stays the authority.

`facts` are the answers of the door; a new field there needs a default, because older records are stored.
`updated` is the time of the last change, in seconds since 1970.
"""

from __future__ import annotations

from pvcd import Name, Record
from pvcd_plugins.ceph.cluster import facts as ceph


class CephStatus(Record, path="/ceph/status"):
    """The status and utilization of Ceph when it was last reached, at `updated`; `failed_reason` says why not since."""

    status: ceph.Status | None = None
    utilization: ceph.Utilization | None = None
    options: tuple[str, ...] = ()
    failed_reason: str | None = None
    updated: float | None = None


class Osd(Record, path="/ceph-osds/{id}"):
    """An OSD; `progress` describes its removal, if one is under way."""

    id: int
    facts: ceph.Osd
    progress: str | None = None
    updated: float


class Pool(Record, path="/ceph-pools/{name}"):
    """A pool for volumes; `failed_reason` says why they cannot be listed, or which of them are incomplete."""

    name: Name
    facts: ceph.Pool
    failed_reason: str | None = None
    updated: float


class Volume(Record, path="/ceph-volumes/{pool}/{name}"):
    """A volume as the list of its pool shows it, with the `facts` of `rbd info`.

    `inspected` is False while the list shows a change that is not yet in `facts`. A volume with a `parent` depends on
    the snapshot of another volume, such as an interrupted clone.
    """

    pool: Name
    name: Name
    id: str
    size: int
    parent: str | None = None
    inspected: bool = False
    facts: ceph.Volume | None = None
    updated: float


class Snapshot(Record, path="/ceph-snapshots/{pool}/{volume}/{snapshot}"):
    """A snapshot of a volume; its `facts` are read together with those of the volume."""

    pool: Name
    volume: Name
    snapshot: Name
    facts: ceph.Snapshot | None = None
    updated: float
