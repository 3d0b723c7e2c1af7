"""The pools and volumes of the Ceph in memory, with the data that was written into them."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field, replace

from pvcd import Clock, NotFound, PvcdError
from pvcd_plugins.ceph.cluster import (
    OPEN,
    AlreadyThere,
    CephUnavailable,
    HasSnapshots,
    InUse,
    ListedVolume,
    Lock,
    Shrinks,
    Snapshot,
    Volume,
    Watcher,
    check_name,
    check_size,
    check_snapshot,
)

OBJECT_BYTES = 4 * 1024**2
FEATURES = ("layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten")


@dataclass
class FakeImage:
    """A volume."""

    id: str
    size: int
    made: str
    data: bytes = b""
    """The data from its beginning to the last byte written."""
    parent: str | None = None
    snapshots: dict[str, tuple[Snapshot, bytes]] = field(default_factory=dict)
    locks: list[Lock] = field(default_factory=list)
    watchers: list[Watcher] = field(default_factory=list)

    @property
    def objects(self) -> int:
        """Return the number of objects that hold its data."""
        return -(-len(self.data) // OBJECT_BYTES)


@dataclass
class FakePool:
    """A pool."""

    id: int
    pgs: int
    copies: int
    mincopies: int
    images: dict[str, FakeImage] = field(default_factory=dict)


class FakeVolumes:
    """The part of `FakeCluster` for volumes."""

    def __init__(self, clock: Clock) -> None:
        self.stopped = False
        """True while Ceph does not answer."""
        self.failing: dict[str, PvcdError] = {}
        """The errors that calls raise before they do anything, by verb."""
        self.calls: list[str] = []
        """The verbs that were called."""
        self.late: set[tuple[str, str]] = set()
        """The volumes whose creation was interrupted, and takes effect later."""
        self._clock = clock
        self._pools: dict[str, FakePool] = {}
        self._numbers = itertools.count(1)

    def open_volume(self, pool: str, volume: str) -> Lock:
        """Let a client open a volume and lock it, like every client that writes."""
        image, number = self._image(pool, volume), next(self._numbers)
        lock = Lock(f"auto {number}", f"client.{number}", f"127.0.0.1:0/{number}")
        image.locks.append(lock)
        image.watchers.append(Watcher(lock.locker, lock.address))
        return lock

    def close_volume(self, pool: str, volume: str) -> None:
        """Let all clients close a volume."""
        image = self._image(pool, volume)
        image.locks, image.watchers = [], []

    def write(self, pool: str, volume: str, data: bytes) -> None:
        """Write at the beginning of a volume."""
        image = self._image(pool, volume)
        image.data = data + image.data[len(data) :]

    def read(self, pool: str, volume: str) -> bytes:
        """Return the whole content of a volume."""
        image = self._image(pool, volume)
        return image.data.ljust(image.size, b"\0")

    def interrupt_clone(self, pool: str, volume: str, source: str) -> None:
        """Turn a volume into an interrupted clone."""
        self._image(pool, volume).parent = f"{pool}/{source}@{next(self._numbers)}"

    async def volumes(self, pool: str) -> list[ListedVolume]:
        """Return the volumes of a pool with their snapshots, by name."""
        self._enter("volumes")
        return [
            ListedVolume(
                pool, name, image.id, image.size, image.parent, bool(image.locks), tuple(sorted(image.snapshots))
            )
            for name, image in sorted(self._pool(pool).images.items())
        ]

    async def volume(self, pool: str, volume: str) -> Volume:
        """Return one volume."""
        self._enter("volume")
        image = self._image(pool, volume)
        return Volume(
            pool=pool,
            name=volume,
            id=image.id,
            size=image.size,
            objects=-(-image.size // OBJECT_BYTES),
            order=22,
            object_size=OBJECT_BYTES,
            snapshot_count=len(image.snapshots),
            block_name_prefix=f"rbd_data.{image.id}",
            format=2,
            features=FEATURES,
            op_features=("clone-child",) if image.parent else (),
            flags=(),
            create_timestamp=image.made,
            access_timestamp=image.made,
            modify_timestamp=image.made,
            parent=image.parent,
        )

    async def create_volume(self, pool: str, volume: str, size: int) -> None:
        """Create an empty volume."""
        self._enter("create_volume")
        self._add(pool, volume, check_size(size))

    async def clone_volume(self, pool: str, source: str, volume: str) -> None:
        """Create an independent copy of a volume in the same pool."""
        self._enter("clone_volume")
        check_name("volume", volume)
        image = self._image(pool, source)
        self._add(pool, volume, image.size).data = image.data

    async def settle_volume(self, pool: str, volume: str, source: str | None = None) -> None:
        """Let an interrupted creation take effect that is `late`."""
        self._enter("settle_volume")
        if (pool, volume) in self.late:
            self.late.remove((pool, volume))
            self._add(pool, volume, 1)

    async def discard_volume(self, pool: str, volume: str) -> None:
        """Do nothing: no volume in memory is incomplete."""
        self._enter("discard_volume")

    async def flatten_volume(self, pool: str, volume: str) -> None:
        """Make a clone independent of its source; no error if it is."""
        self._enter("flatten_volume")
        self._image(pool, volume).parent = None

    async def resize_volume(self, pool: str, volume: str, size: int, *, shrink: bool = False) -> None:
        """Change the size. Raises `Shrinks` for a smaller size unless `shrink` is set."""
        self._enter("resize_volume")
        check_size(size)
        image = self._image(pool, volume)
        if size < image.size and not shrink:
            raise Shrinks(f"{pool}/{volume}")
        image.size, image.data = size, image.data[:size]

    async def rename_volume(self, pool: str, volume: str, new: str) -> None:
        """Rename a volume."""
        self._enter("rename_volume")
        check_name("volume", new)
        self._image(pool, volume)
        images = self._pool(pool).images
        if new in images:
            raise AlreadyThere("volume", f"rename volume '{pool}/{volume}' to {new!r}")
        images[new] = images.pop(volume)

    async def remove_volume(self, pool: str, volume: str) -> None:
        """Remove a volume that has no snapshots and that no client has open."""
        self._enter("remove_volume")
        image, act = self._image(pool, volume), f"remove volume '{pool}/{volume}'"
        if image.snapshots:
            raise HasSnapshots(f"{pool}/{volume}")
        if image.watchers:
            raise InUse("volume", act, OPEN)
        images = self._pool(pool).images
        if any((each.parent or "").startswith(f"{pool}/{volume}@") for each in images.values()):
            raise InUse("volume", act, "a clone still depends on it")
        del images[volume]

    async def snapshots(self, pool: str, volume: str) -> list[Snapshot]:
        """Return the snapshots of a volume, by name."""
        self._enter("snapshots")
        return [each for _, (each, _) in sorted(self._image(pool, volume).snapshots.items())]

    async def create_snapshot(self, pool: str, volume: str, snapshot: str) -> None:
        """Take a snapshot."""
        self._enter("create_snapshot")
        check_snapshot(snapshot)
        image = self._image(pool, volume)
        if snapshot in image.snapshots:
            raise AlreadyThere("snapshot", f"add snapshot '{pool}/{volume}@{snapshot}'")
        taken = Snapshot(pool, volume, snapshot, next(self._numbers), image.size, False, self._now())
        image.snapshots[snapshot] = taken, image.data

    async def rename_snapshot(self, pool: str, volume: str, snapshot: str, new: str) -> None:
        """Rename a snapshot."""
        self._enter("rename_snapshot")
        check_snapshot(new)
        snapshots = self._snapshots(pool, volume, snapshot)
        if new in snapshots:
            raise AlreadyThere("snapshot", f"rename snapshot '{pool}/{volume}@{snapshot}' to {new!r}")
        taken, data = snapshots.pop(snapshot)
        snapshots[new] = replace(taken, name=new), data

    async def remove_snapshot(self, pool: str, volume: str, snapshot: str) -> None:
        """Remove a snapshot."""
        self._enter("remove_snapshot")
        del self._snapshots(pool, volume, snapshot)[snapshot]

    async def rollback(self, pool: str, volume: str, snapshot: str) -> None:
        """Roll a volume that no client has open back to a snapshot."""
        self._enter("rollback")
        image = self._image(pool, volume)
        if image.watchers:
            raise InUse("volume", f"roll back volume '{pool}/{volume}'", OPEN)
        taken, image.data = self._snapshots(pool, volume, snapshot)[snapshot]
        image.size = taken.size

    async def locks(self, pool: str, volume: str) -> list[Lock]:
        """Return the locks of a volume."""
        self._enter("locks")
        return list(self._image(pool, volume).locks)

    async def remove_lock(self, pool: str, volume: str, lock: Lock) -> None:
        """Break a lock and block its holder from ever writing again; no error if it is gone."""
        self._enter("remove_lock")
        check_name("volume", volume)
        image = self._pool(pool).images.get(volume)
        if image is not None:
            image.locks = [each for each in image.locks if each != lock]
            image.watchers = [each for each in image.watchers if each.client != lock.locker]

    async def watchers(self, pool: str, volume: str) -> list[Watcher]:
        """Return the clients that have a volume open."""
        self._enter("watchers")
        return list(self._image(pool, volume).watchers)

    def _enter(self, verb: str) -> None:
        self.calls.append(verb)
        if self.stopped:
            raise CephUnavailable("Ceph did not answer within 30 s.")
        if verb in self.failing:
            raise self.failing[verb]

    def _pool(self, pool: str) -> FakePool:
        if check_name("pool", pool) not in self._pools:
            raise NotFound("pool", pool)
        return self._pools[pool]

    def _image(self, pool: str, volume: str) -> FakeImage:
        images = self._pool(pool).images
        if check_name("volume", volume) not in images:
            raise NotFound("volume", f"{pool}/{volume}")
        return images[volume]

    def _snapshots(self, pool: str, volume: str, snapshot: str) -> dict[str, tuple[Snapshot, bytes]]:
        snapshots = self._image(pool, volume).snapshots
        if check_name("snapshot", snapshot) not in snapshots:
            raise NotFound("snapshot", f"{pool}/{volume}@{snapshot}")
        return snapshots

    def _add(self, pool: str, volume: str, size: int) -> FakeImage:
        images = self._pool(pool).images
        if check_name("volume", volume) in images:
            raise AlreadyThere("volume", f"add volume '{pool}/{volume}'")
        image = images[volume] = FakeImage(f"{next(self._numbers):012x}", size, self._now())
        return image

    def _now(self) -> str:
        return time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime(self._clock.time()))
