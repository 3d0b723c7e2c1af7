"""What Ceph said last, as only the primary writes it: a mirror for quick reads, of which Ceph itself is the truth.

`facts` are the answers of the door as they are; a fact that is added there needs a default, for older ones are stored.
`updated` is when it was news (seconds since 1970).
"""

from __future__ import annotations

from pvcd import Name, Record
from pvcd_plugins.ceph.cluster import facts as said


class CephStatus(Record, path="/ceph/status"):
    """How Ceph is and how full; `updated` is when it was last reached, `failed_reason` why it was not since."""

    status: said.Status | None = None
    utilization: said.Utilization | None = None
    options: tuple[str, ...] = ()
    failed_reason: str | None = None
    updated: float | None = None


class Osd(Record, path="/ceph-osds/{id}"):
    """An OSD; `progress` tells how far its removal is."""

    id: int
    facts: said.Osd
    progress: str | None = None
    updated: float


class Pool(Record, path="/ceph-pools/{name}"):
    """A pool for volumes; `failed_reason` says why its volumes could not be listed, or which of them are incomplete."""

    name: Name
    facts: said.Pool
    failed_reason: str | None = None
    updated: float


class Volume(Record, path="/ceph-volumes/{pool}/{name}"):
    """A volume: what the list of its pool says at once, and `facts` once it was looked at by itself.

    `looked` is False while the list tells of a change that `facts` do not know yet. With a `parent` it still needs
    another volume's snapshot, as a clone does whose making was interrupted.
    """

    pool: Name
    name: Name
    id: str
    size: int
    parent: str | None = None
    looked: bool = False
    facts: said.Volume | None = None
    updated: float


class Snapshot(Record, path="/ceph-snapshots/{pool}/{volume}/{snapshot}"):
    """A snapshot of a volume; its `facts` come with those of the volume."""

    pool: Name
    volume: Name
    snapshot: Name
    facts: said.Snapshot | None = None
    updated: float
