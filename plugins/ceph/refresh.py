"""The mirror: the primary reads the state of Ceph periodically and writes the changes into the records.

A node command also reads what it changed before it answers. A periodic refresh takes longer, so the records that a
command wrote meanwhile are newer than the refresh and stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from pvcd import (
    Component,
    ComponentKey,
    Context,
    Create,
    Delete,
    KeyedLocks,
    NotFound,
    Put,
    PvcdError,
    Record,
    Role,
    retried,
)
from pvcd_plugins.ceph.cluster import DEAD_CLIENT_SECONDS, LEFTOVER, CephError, CephRefused, CephUnavailable
from pvcd_plugins.ceph.cluster import facts as ceph
from pvcd_plugins.ceph.components import CLUSTER
from pvcd_plugins.ceph.records import CephStatus, Osd, Pool, Snapshot, Volume

log = logging.getLogger(__name__)
Changes = list[Create | Put | Delete]
Wanted = dict[str, dict[str, Any]]
"""The values that records should have, by path."""
Remains = tuple[str, str]
"""An incomplete volume, or a volume and a snapshot that was made to copy it."""

BATCH = 200
"""Records in one transaction, far below the limit of the store."""
MAX_INSPECTIONS = 200
"""Volumes that are inspected individually in one refresh; the others wait for the next one."""
CONCURRENCY = 4
REMAINS_SECONDS = 3 * DEAD_CLIENT_SECONDS
"""Longer than any request takes to create a volume, or to begin a copy, even while Ceph hangs."""
RBD = "rbd"
"""The application of pools for volumes; a pool without any is incomplete."""


class Mirror:
    """The only writer of the records of Ceph, on the primary."""

    def __init__(self) -> None:
        self.progress: dict[int, str] = {}
        """The removals of OSDs that are under way here -> their progress."""
        self.cloning: set[str] = set()
        """The paths of volumes that are being cloned here."""
        self._remains: dict[str, dict[Remains, float]] = {}
        """Pool -> what interrupted requests left there -> when each was first listed."""
        self._reading = KeyedLocks()
        self._writing = asyncio.Lock()
        self._written: set[str] = set()
        """The paths of volumes that node commands wrote since the last refresh began."""

    async def refresh(self, context: Context) -> None:
        """Read everything. When Ceph fails, report it once and keep the records."""
        self._written.clear()
        try:
            await self.status(context)
            await self.osds(context)
            pools = [pool.name for pool in await self.pools(context) if RBD in pool.applications]
            await _concurrently(self._list(context, pool) for pool in pools)
            await self._inspect(context)
            failed_reason = None
        except (CephError, CephUnavailable, CephRefused) as error:
            failed_reason = error.sentence
        await _report(context, failed_reason)

    async def status(self, context: Context) -> None:
        """Record the status and utilization of Ceph."""
        async with self._reading.hold(CephStatus.at()):
            cluster = context[CLUSTER]
            status, utilization = await cluster.status(), await cluster.utilization()
            options = tuple(sorted(await cluster.options()))
            await context.store.upsert(
                CephStatus, status=status, utilization=utilization, options=options, updated=context.clock.time()
            )

    async def osds(self, context: Context) -> list[ceph.Osd]:
        """Record all OSDs, and return them."""
        async with self._reading.hold(Osd.root):
            found = await context[CLUSTER].osds()
            await self._write(context, lambda: self._osd_changes(context, found))
            return found

    async def pools(self, context: Context) -> list[ceph.Pool]:
        """Record all pools for volumes, and return them; the volumes of a removed pool are removed with it."""
        async with self._reading.hold(Pool.root):
            found = [pool for pool in await context[CLUSTER].pools() if is_ours(pool)]
            await self._write(context, lambda: _pool_changes(context, found))
            return found

    async def volumes(self, context: Context, pool: str, *names: str) -> None:
        """Record the current state of some volumes of a pool and their snapshots, in one transaction."""
        async with contextlib.AsyncExitStack() as stack:
            for path in sorted({Volume.at(pool, name) for name in names}):
                await stack.enter_async_context(self._reading.hold(path))
            found = {name: await _read(context, pool, name) for name in names}

            def changes() -> Changes:
                self._written.update(Volume.at(pool, name) for name in names)
                return [each for name, seen in found.items() for each in _volume_changes(context, pool, name, seen)]

            await self._write(context, changes)

    async def _list(self, context: Context, pool: str) -> None:
        """Record the volumes that the list of a pool shows."""
        listed, failed_reason = None, None
        try:
            listed = await context[CLUSTER].volumes(pool)
            failed_reason = _incomplete(listed)
        except NotFound:
            return
        except (CephError, CephUnavailable, CephRefused) as error:
            failed_reason = f"Cannot list the volumes: {error.sentence}"
        await _put_failed_reason(context, pool, failed_reason)
        if listed is not None:
            await self._discard(context, pool, _remains(listed))
            complete = [volume for volume in listed if volume.id]
            await self._write(context, lambda: self._list_changes(context, pool, complete))

    async def _discard(self, context: Context, pool: str, found: Iterable[Remains]) -> None:
        """Remove what interrupted requests left, once their clients have certainly ended."""
        now, known = context.clock.monotonic(), self._remains.get(pool, {})
        self._remains[pool] = since = {each: known.get(each, now) for each in found}
        for volume, snapshot in [each for each, seen in since.items() if now - seen >= REMAINS_SECONDS]:
            log.info("removing what an interrupted request left: %s/%s%s", pool, volume, snapshot and f"@{snapshot}")
            since[volume, snapshot] = now
            try:
                if snapshot:
                    await context[CLUSTER].remove_snapshot(pool, volume, snapshot)
                else:
                    await context[CLUSTER].discard_volume(pool, volume)
            except PvcdError as error:
                log.info("%s", error)

    async def _inspect(self, context: Context) -> None:
        """Read each volume that has changed in the list of its pool."""

        async def inspect(volume: Volume) -> None:
            try:
                await self.volumes(context, volume.pool, volume.name)
            except (CephError, CephRefused) as error:
                log.info("volume %s/%s: %s", volume.pool, volume.name, error)

        waiting = [volume for volume in context.store.all(Volume) if not volume.inspected]
        await _concurrently(inspect(volume) for volume in waiting[:MAX_INSPECTIONS])

    async def _write(self, context: Context, changes: Callable[[], Changes]) -> None:
        async with self._writing:
            await _commit(context, changes)

    def _osd_changes(self, context: Context, found: Iterable[ceph.Osd]) -> Changes:
        wanted: Wanted = {}
        for osd in found:
            wanted[Osd.at(osd.id)] = {"id": osd.id, "facts": osd, "progress": self.progress.get(osd.id)}
        return _changes(context, Osd, context.store.all(Osd), wanted)

    def _list_changes(self, context: Context, pool: str, listed: Iterable[ceph.ListedVolume]) -> Changes:
        """Return the changes of a list, except for volumes that node commands wrote since."""
        if context.store.get(Pool, pool) is None:
            return []
        old = [volume for volume in context.store.all(Volume) if volume.pool == pool]
        known = {volume.name: volume for volume in old}
        old_snapshots = [snapshot for snapshot in context.store.all(Snapshot) if snapshot.pool == pool]
        names: dict[str, set[str]] = {}
        for snapshot in old_snapshots:
            names.setdefault(snapshot.volume, set()).add(snapshot.snapshot)
        volumes: Wanted = {}
        snapshots: Wanted = {}
        for each in listed:
            taken = {name for name in each.snapshots if not name.startswith(LEFTOVER)}
            values = {"pool": pool, "name": each.name, "id": each.id, "size": each.size, "parent": each.parent}
            if _differ(known.get(each.name), values) or taken != names.get(each.name, set()):
                values["inspected"] = False
            volumes[Volume.at(pool, each.name)] = values
            for name in taken:
                snapshots[Snapshot.at(pool, each.name, name)] = {"pool": pool, "volume": each.name, "snapshot": name}
        changes = _changes(context, Volume, old, volumes) + _changes(context, Snapshot, old_snapshots, snapshots)
        return [change for change in changes if _volume_path(change.record) not in self._written]


async def _concurrently(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run a few coroutines at a time; after a failure start no more."""
    waiting = list(works)
    try:
        while waiting:
            now, waiting = waiting[:CONCURRENCY], waiting[CONCURRENCY:]
            for result in await asyncio.gather(*now, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
    finally:
        for work in waiting:
            work.close()


def _remains(listed: Iterable[ceph.ListedVolume]) -> list[Remains]:
    """Return the incomplete volumes of a list, and the snapshots for copies."""
    incomplete = [(volume.name, "") for volume in listed if not volume.id]
    snapshots = [(volume.name, name) for volume in listed for name in volume.snapshots if name.startswith(LEFTOVER)]
    return incomplete + snapshots


def _incomplete(listed: Iterable[ceph.ListedVolume]) -> str | None:
    """Return a sentence about the incomplete volumes of a list."""
    names = ", ".join(volume.name for volume in listed if not volume.id)
    return f"Incomplete volumes, which are removed after two minutes: {names}." if names else None


def is_ours(pool: ceph.Pool) -> bool:
    """Tell whether a pool is for volumes, or an incomplete one that may be meant for them."""
    return RBD in pool.applications or not pool.applications


def _volume_path(record: Record) -> str:
    """Return the path of a volume, or of the volume of a snapshot."""
    return Volume.at(record.pool, record.volume) if isinstance(record, Snapshot) else record.path


async def _read(context: Context, pool: str, name: str) -> tuple[ceph.Volume, list[ceph.Snapshot]] | None:
    """Return a volume with its snapshots; None if it does not exist."""
    cluster = context[CLUSTER]
    try:
        return await cluster.volume(pool, name), await cluster.snapshots(pool, name)
    except NotFound:
        return None


def _pool_changes(context: Context, found: Iterable[ceph.Pool]) -> Changes:
    wanted: Wanted = {Pool.at(pool.name): {"name": pool.name, "facts": pool} for pool in found}
    children: list[Snapshot | Volume] = [*context.store.all(Snapshot), *context.store.all(Volume)]
    orphans = [each for each in children if Pool.at(each.pool) not in wanted]
    return [*_changes(context, Pool, context.store.all(Pool), wanted), *map(Delete, orphans)]


def _volume_changes(
    context: Context, pool: str, name: str, seen: tuple[ceph.Volume, list[ceph.Snapshot]] | None
) -> Changes:
    store = context.store
    old = store.get(Volume, pool, name)
    old_snapshots = [each for each in store.all(Snapshot) if (each.pool, each.volume) == (pool, name)]
    volumes: Wanted = {}
    snapshots: Wanted = {}
    if seen:
        facts, taken = seen
        values = {"id": facts.id, "size": facts.size, "parent": facts.parent, "inspected": True, "facts": facts}
        volumes[Volume.at(pool, name)] = {"pool": pool, "name": name, **values}
        for each in taken:
            if not each.name.startswith(LEFTOVER):
                keys = {"pool": pool, "volume": name, "snapshot": each.name}
                snapshots[Snapshot.at(pool, name, each.name)] = {**keys, "facts": each}
    changes = _changes(context, Volume, [old] if old else [], volumes)
    return [*changes, *_changes(context, Snapshot, old_snapshots, snapshots)]


def _changes(context: Context, kind: type[Record], old: Sequence[Record], wanted: Wanted) -> Changes:
    """Return the changes that turn the old records of a type into the wanted ones."""
    now = context.clock.time()
    changes: Changes = []
    known = {record.path: record for record in old}
    for path, values in wanted.items():
        record = known.pop(path, None)
        if record is None:
            changes.append(Create(kind.model_validate(values | {"updated": now})))
        elif _differ(record, values):
            changes.append(Put(record.changed(**values, updated=now)))
    return [*changes, *map(Delete, known.values())]


def _differ(record: Record | None, values: Mapping[str, Any]) -> bool:
    return record is None or not record.holds(values)


@retried
async def _commit(context: Context, changes: Callable[[], Changes]) -> None:
    """Write the changes against the records that are in memory now."""
    found = changes()
    for start in range(0, len(found), BATCH):
        await context.store.write(*found[start : start + BATCH])


async def _report(context: Context, failed_reason: str | None) -> None:
    """Record and log once that Ceph failed or answers again."""
    old = context.store.get(CephStatus)
    if failed_reason == (old.failed_reason if old else None):
        return
    log.warning("%s", failed_reason or "Ceph answers again.")
    await context.store.upsert(CephStatus, failed_reason=failed_reason)


@retried
async def _put_failed_reason(context: Context, pool: str, failed_reason: str | None) -> None:
    record = context.store.get(Pool, pool)
    if record and record.failed_reason != failed_reason:
        await context.store.write(Put(record.changed(failed_reason=failed_reason)))


@contextlib.asynccontextmanager
async def open_mirror(context: Context) -> AsyncIterator[Mirror]:
    """Open a mirror without operations under way."""
    yield Mirror()


MIRROR: ComponentKey[Mirror] = ComponentKey("ceph-mirror")
COMPONENT = Component(MIRROR, open_mirror, roles=(Role.NODE,), in_memory=True)
