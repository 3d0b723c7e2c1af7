"""The mirror: the primary looks at Ceph again and again, and writes what is news into the records.

What a command did is looked at by itself before the command is answered. The look at everything takes longer, so what a
command wrote meanwhile is newer than what it saw, and stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from pvcd import (
    Changed,
    Component,
    ComponentKey,
    Context,
    Create,
    Delete,
    Exists,
    KeyedLocks,
    NotFound,
    Put,
    Record,
    Role,
    retried,
)
from pvcd_plugins.ceph.cluster import LEFTOVER, CephError, CephRefused, CephUnavailable
from pvcd_plugins.ceph.cluster import facts as said
from pvcd_plugins.ceph.components import CLUSTER
from pvcd_plugins.ceph.records import CephStatus, Osd, Pool, Snapshot, Volume

log = logging.getLogger(__name__)
Changes = list[Create | Put | Delete]
Wanted = dict[str, dict[str, Any]]
"""The values that records should have, by their paths."""

BATCH = 200
"""Records in one transaction: far below what the store takes at once."""
CLOSER_LOOKS = 200
"""Volumes that are looked at by themselves in one refresh; further ones wait for the next."""
SIDE_BY_SIDE = 4
RBD = "rbd"
"""The application of pools for volumes; a pool without any was not finished."""


class Mirror:
    """The only writer of Ceph's records, on the node that is primary."""

    def __init__(self) -> None:
        self.progress: dict[int, str] = {}
        """The removals of OSDs that are under way here, and how far they are."""
        self.cloning: set[str] = set()
        """The paths of volumes that are being cloned here."""
        self._looking = KeyedLocks()
        self._writing = asyncio.Lock()
        self._written: set[str] = set()
        """The paths of volumes that commands wrote since the last refresh began."""

    async def refresh(self, context: Context) -> None:
        """Look at everything. When Ceph fails, say so once and keep what was known."""
        self._written.clear()
        try:
            await self.status(context)
            await self.osds(context)
            pools = [pool.name for pool in await self.pools(context) if RBD in pool.applications]
            await _side_by_side(self._list(context, pool) for pool in pools)
            await self._look_closer(context)
            failed_reason = None
        except (CephError, CephUnavailable, CephRefused) as error:
            failed_reason = error.sentence
        await _say(context, failed_reason)

    async def status(self, context: Context) -> None:
        """Record how Ceph is."""
        async with self._looking.hold(CephStatus.at()):
            cluster = context[CLUSTER]
            status, utilization = await cluster.status(), await cluster.utilization()
            options = tuple(sorted(await cluster.options()))
            await _put_status(
                context, status=status, utilization=utilization, options=options, updated=context.clock.time()
            )

    async def osds(self, context: Context) -> list[said.Osd]:
        """Record all OSDs, and return them."""
        async with self._looking.hold(Osd.root):
            found = await context[CLUSTER].osds()
            await self._write(context, lambda: self._news_of_osds(context, found))
            return found

    async def pools(self, context: Context) -> list[said.Pool]:
        """Record all pools of ours, and return them; with a pool go its volumes."""
        async with self._looking.hold(Pool.root):
            found = [pool for pool in await context[CLUSTER].pools() if is_ours(pool)]
            await self._write(context, lambda: _news_of_pools(context, found))
            return found

    async def volumes(self, context: Context, pool: str, *names: str) -> None:
        """Record some volumes of a pool, with their snapshots, as they are now: all in one transaction."""
        async with contextlib.AsyncExitStack() as stack:
            for path in sorted({Volume.at(pool, name) for name in names}):
                await stack.enter_async_context(self._looking.hold(path))
            found = {name: await _look(context, pool, name) for name in names}

            def news() -> Changes:
                self._written.update(Volume.at(pool, name) for name in names)
                return [change for name, seen in found.items() for change in _news_of_volume(context, pool, name, seen)]

            await self._write(context, news)

    async def _list(self, context: Context, pool: str) -> None:
        """Record all volumes of a pool by its list."""
        listed, failed_reason = None, None
        try:
            listed = await context[CLUSTER].volumes(pool)
            failed_reason = _incomplete(listed)
        except NotFound:
            return
        except (CephError, CephUnavailable, CephRefused) as error:
            failed_reason = f"Its volumes could not be listed: {error.sentence}"
        await _put_failed_reason(context, pool, failed_reason)
        if listed is not None:
            whole = [volume for volume in listed if volume.id]
            await self._write(context, lambda: self._news_of_list(context, pool, whole))

    async def _look_closer(self, context: Context) -> None:
        """Look at each volume of which the list told news."""

        async def look(volume: Volume) -> None:
            try:
                await self.volumes(context, volume.pool, volume.name)
            except (CephError, CephRefused) as error:
                log.info("volume %s/%s: %s", volume.pool, volume.name, error)

        unknown = [volume for volume in context.store.all(Volume) if not volume.looked]
        await _side_by_side(look(volume) for volume in unknown[:CLOSER_LOOKS])

    async def _write(self, context: Context, news: Callable[[], Changes]) -> None:
        async with self._writing:
            await _commit(context, news)

    def _news_of_osds(self, context: Context, found: Iterable[said.Osd]) -> Changes:
        wanted: Wanted = {}
        for osd in found:
            wanted[Osd.at(osd.id)] = {"id": osd.id, "facts": osd, "progress": self.progress.get(osd.id)}
        return _news(context, Osd, context.store.all(Osd), wanted)

    def _news_of_list(self, context: Context, pool: str, listed: Iterable[said.ListedVolume]) -> Changes:
        """What a list says, but for the volumes that were looked at since."""
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
                values["looked"] = False
            volumes[Volume.at(pool, each.name)] = values
            for name in taken:
                snapshots[Snapshot.at(pool, each.name, name)] = {"pool": pool, "volume": each.name, "snapshot": name}
        changes = _news(context, Volume, old, volumes) + _news(context, Snapshot, old_snapshots, snapshots)
        return [change for change in changes if _volume_path(change.record) not in self._written]


async def _side_by_side(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do a few at a time; after a failure no further ones are begun."""
    waiting = list(works)
    try:
        while waiting:
            now, waiting = waiting[:SIDE_BY_SIDE], waiting[SIDE_BY_SIDE:]
            for result in await asyncio.gather(*now, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
    finally:
        for work in waiting:
            work.close()


def _incomplete(listed: Iterable[said.ListedVolume]) -> str | None:
    """What is said of those that are no volumes but have a name."""
    names = ", ".join(volume.name for volume in listed if not volume.id)
    return f"Made or removed by half only, so that they can but be removed: {names}." if names else None


def is_ours(pool: said.Pool) -> bool:
    """Whether a pool is for volumes, or was to become one."""
    return RBD in pool.applications or not pool.applications


def _volume_path(record: Record) -> str:
    """The path of the volume that a record is, or is of."""
    return Volume.at(record.pool, record.volume) if isinstance(record, Snapshot) else record.path


async def _look(context: Context, pool: str, name: str) -> tuple[said.Volume, list[said.Snapshot]] | None:
    """A volume with its snapshots; None if there is none."""
    cluster = context[CLUSTER]
    try:
        return await cluster.volume(pool, name), await cluster.snapshots(pool, name)
    except NotFound:
        return None


def _news_of_pools(context: Context, found: Iterable[said.Pool]) -> Changes:
    wanted: Wanted = {Pool.at(pool.name): {"name": pool.name, "facts": pool} for pool in found}
    children: list[Snapshot | Volume] = [*context.store.all(Snapshot), *context.store.all(Volume)]
    orphans = [each for each in children if Pool.at(each.pool) not in wanted]
    return [*_news(context, Pool, context.store.all(Pool), wanted), *map(Delete, orphans)]


def _news_of_volume(
    context: Context, pool: str, name: str, seen: tuple[said.Volume, list[said.Snapshot]] | None
) -> Changes:
    store = context.store
    old = store.get(Volume, pool, name)
    old_snapshots = [each for each in store.all(Snapshot) if (each.pool, each.volume) == (pool, name)]
    volumes: Wanted = {}
    snapshots: Wanted = {}
    if seen:
        facts, taken = seen
        values = {"id": facts.id, "size": facts.size, "parent": facts.parent, "looked": True, "facts": facts}
        volumes[Volume.at(pool, name)] = {"pool": pool, "name": name, **values}
        for each in taken:
            if not each.name.startswith(LEFTOVER):
                keys = {"pool": pool, "volume": name, "snapshot": each.name}
                snapshots[Snapshot.at(pool, name, each.name)] = {**keys, "facts": each}
    changes = _news(context, Volume, [old] if old else [], volumes)
    return [*changes, *_news(context, Snapshot, old_snapshots, snapshots)]


def _news(context: Context, kind: type[Record], old: Sequence[Record], wanted: Wanted) -> Changes:
    """What makes the old records of a type the wanted ones."""
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
    return record is None or any(getattr(record, name) != value for name, value in values.items())


@retried
async def _commit(context: Context, news: Callable[[], Changes]) -> None:
    """Write what is news by what is in memory now."""
    changes = news()
    for start in range(0, len(changes), BATCH):
        try:
            await context.store.write(*changes[start : start + BATCH])
        except Exists as error:  # memory was behind, and has it by now
            raise Changed(error.path) from None


@retried
async def _put_status(context: Context, **values: object) -> None:
    old = context.store.get(CephStatus)
    await context.store.write(Put(old.changed(**values)) if old else Create(CephStatus.model_validate(values)))


async def _say(context: Context, failed_reason: str | None) -> None:
    """Record, and log, that Ceph failed or is back; once."""
    old = context.store.get(CephStatus)
    if failed_reason == (old.failed_reason if old else None):
        return
    log.warning("Ceph: %s", failed_reason or "it answers again.")
    await _put_status(context, failed_reason=failed_reason)


@retried
async def _put_failed_reason(context: Context, pool: str, failed_reason: str | None) -> None:
    record = context.store.get(Pool, pool)
    if record and record.failed_reason != failed_reason:
        await context.store.write(Put(record.changed(failed_reason=failed_reason)))


@contextlib.asynccontextmanager
async def open_mirror(context: Context) -> AsyncIterator[Mirror]:
    """A mirror that knows of nothing under way."""
    yield Mirror()


MIRROR: ComponentKey[Mirror] = ComponentKey("ceph-mirror")
COMPONENT = Component(MIRROR, open_mirror, roles=(Role.NODE,))
