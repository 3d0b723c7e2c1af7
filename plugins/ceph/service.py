"""The rules for storage: what may be asked of Ceph, who does it, and what other plugins may know of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from pvcd import Conflict, Context, Failed, Invalid, Message, NotFound, OperationKind, PvcdError, Refused, matcher
from pvcd_plugins.ceph.cluster import CephUnavailable, Lock, Monitors
from pvcd_plugins.ceph.components import CLUSTER, MAPPING
from pvcd_plugins.ceph.params import Replication
from pvcd_plugins.ceph.records import CephStatus, Osd, Pool, Snapshot, Volume
from pvcd_plugins.ceph.settings import CephSettings
from pvcd_plugins.ceph.views import (
    SNAPSHOTS,
    VOLUMES,
    OsdState,
    OsdView,
    PoolView,
    SnapshotList,
    StatusView,
    UtilizationView,
    VolumeList,
    osd_state,
    osd_view,
    pool_view,
    status_view,
    utilization_view,
)
from pvcd_plugins.node import service as nodes

__all__ = ["CLUSTER", "MAPPING", "CephSettings", "Lock", "Monitors", "NoSpace", "Pool", "Snapshot", "Volume"]

log = logging.getLogger(__name__)
LOOK_SECONDS = 10.0
LOOKS = 4
"""A command asks Ceph a few things in a row, each of which has a deadline of its own."""
LONG_SECONDS = 2 * 3600.0
"""For what takes longer the larger a volume is."""
OSD_SECONDS = 900.0
"""For a node to make or wipe an OSD."""
DRAIN_SECONDS = 7 * 86400.0
DRAIN_POLL = 2.0
_VOLUME = {
    "pool": {"type": "string", "description": "The pool's name"},
    "volume": {"type": "string", "description": "The volume's name"},
}
_SIZES = {
    "size": {"type": "integer", "description": "Its new size in bytes"},
    "shrink": {"type": "boolean", "description": "Whether it may become smaller"},
}
OPERATIONS = [
    OperationKind(
        "ceph-volume-rename",
        "Rename a volume.",
        "api",
        {**_VOLUME, "new": {"type": "string", "description": "Its new name"}},
    ),
    OperationKind("ceph-volume-resize", "Resize a volume.", "api", _VOLUME | _SIZES),
]
"""What one route does under several names."""
REPLICATION = Replication(copies=3, mincopies=2)


class NoSpace(Conflict):
    """A pool has no room for a volume."""

    code = "pool-full"

    def __init__(self, pool: str, wanted: int, free: int) -> None:
        super().__init__(f"The pool {pool!r} has room for {free} bytes, not for {wanted}.")


async def _ask(context: Context, verb: str, *, seconds: float | None = None, **arguments: Any) -> Any:
    """Let the primary do it."""
    deadline = seconds or LOOKS * context.settings.of(CephSettings).deadline
    return await context.node_commands.ask_primary(verb, seconds=deadline, **arguments)


# For other plugins


def find_pool(context: Context, pool: str) -> Pool:
    """The pool of this exact name, as the last refresh saw it."""
    found = context.store.get(Pool, pool)
    if found is None:
        raise NotFound("pool", pool)
    return found


def find_volume(context: Context, pool: str, volume: str) -> Volume:
    """The volume of this exact name, as the last refresh saw it."""
    found = context.store.get(Volume, pool, volume)
    if found is None:
        raise NotFound("volume", f"{pool}/{volume}")
    return found


async def remove_volume(context: Context, pool: str, volume: str) -> None:
    """Remove a volume; no guard is asked."""
    await _ask(context, "ceph-volume-remove", seconds=LONG_SECONDS, pool=pool, volume=volume)


async def seen(context: Context, volumes: Iterable[tuple[str, str]]) -> None:
    """Let all see volumes (pool and name) as they are now, which a worker has made or removed by itself.

    Where that cannot be, the next refresh shows them.
    """
    by_pool: dict[str, list[str]] = {}
    for pool, volume in volumes:
        by_pool.setdefault(pool, []).append(volume)
    for pool, names in by_pool.items():
        try:
            await context.node_commands.ask_primary("ceph-volume-look", seconds=LOOK_SECONDS, pool=pool, volumes=names)
        except PvcdError as error:
            log.info("the volumes %s of the pool %s are seen later: %s", ", ".join(names), pool, error)


async def locks(context: Context, pool: str, volume: str) -> list[Lock]:
    """The locks of a volume, as they are now."""
    return [Lock(**lock) for lock in await _ask(context, "ceph-volume-locks", pool=pool, volume=volume)]


async def clear_locks(context: Context, pool: str, volume: str) -> list[Lock]:
    """Break all locks of a volume and keep their holders from writing ever again; returns those that there were."""
    return [Lock(**lock) for lock in await _ask(context, "ceph-volume-unlock", pool=pool, volume=volume)]


def libvirt_user(context: Context) -> str:
    """Who guests are to Ceph."""
    return context.settings.of(CephSettings).libvirt_user


async def libvirt_key(context: Context) -> str:
    """The key of that user in base64, from Ceph; only on a node."""
    return await context[CLUSTER].auth_key(libvirt_user(context))


async def monitors(context: Context) -> Monitors:
    """Which cluster it is and where guests find it, from Ceph; only on a node."""
    return await context[CLUSTER].monitors()


# The cluster


def get_status(context: Context) -> StatusView:
    """How Ceph is."""
    return status_view(context, _known(context))


def get_utilization(context: Context) -> UtilizationView:
    """How full Ceph is."""
    return utilization_view(context, _known(context))


def _known(context: Context) -> CephStatus:
    """What is known of Ceph, once somebody reached it."""
    found = context.store.get(CephStatus)
    if found is None or found.status is None or found.utilization is None:
        raise CephUnavailable((found and found.failed_reason) or "Ceph has not been reached yet.")
    return found


async def set_option(context: Context, action: str, option: str) -> Message:
    """Set or unset a flag of all OSDs."""
    await _ask(context, "ceph-option", action=action, option=option)
    return Message(message=f"The option {option} is {action}.")


# OSDs


def find_osd(context: Context, osd: str) -> Osd:
    """The OSD of this id."""
    found = context.store.get(Osd, osd)
    if found is None:
        raise NotFound("OSD", osd)
    return found


def list_osds(context: Context, limit: str | None) -> list[OsdView]:
    """The OSDs whose id matches a limit, by id."""
    matches = matcher(limit)
    found = [osd for osd in context.store.all(Osd) if matches((str(osd.id),))]
    return [osd_view(osd) for osd in sorted(found, key=lambda osd: osd.id)]


def get_osd(context: Context, osd: str) -> list[OsdView]:
    """One OSD, as a list of one."""
    return [osd_view(find_osd(context, osd))]


def get_osd_state(context: Context, osd: str) -> OsdState:
    """Whether an OSD is in and up."""
    return osd_state(find_osd(context, osd))


async def add_osd(context: Context, node: str, device: str, weight: float) -> Message:
    """Let a node make an OSD of a device."""
    nodes.find(context, node)
    osd = await context.node_commands.ask(node, "ceph-osd-add", seconds=OSD_SECONDS, device=device, weight=weight)
    warnings = None
    try:
        await _ask(context, "ceph-osd-record")
    except Failed as error:
        warnings = [f"It is not in the list yet: {error.sentence}"]
    return Message(message=f"OSD {osd} is made of {device} on node {node}.", warnings=warnings)


async def set_osd_state(context: Context, osd: str, state: str) -> Message:
    """Set an OSD in or out."""
    await _ask(context, "ceph-osd-state", osd=_osd_id(osd), state=state)
    return Message(message=f"OSD {osd} is {state}.")


async def remove_osd(context: Context, osd: str, confirmed: bool) -> Message:
    """Drain an OSD, let its node stop and wipe it, and forget it."""
    _need_confirmation(confirmed, f"OSD {osd}")
    warnings = await _ask(context, "ceph-osd-remove", seconds=DRAIN_SECONDS, osd=_osd_id(osd))
    return Message(message=f"OSD {osd} is removed.", warnings=warnings or None)


def _osd_id(osd: str) -> int:
    """The number of an OSD; whether there is one of it, Ceph knows."""
    if not (osd.isascii() and osd.isdecimal() and len(osd) < 10 and str(int(osd)) == osd):
        raise NotFound("OSD", osd)
    return int(osd)


def _need_confirmation(confirmed: bool, what: str) -> None:
    if not confirmed:
        raise Refused(
            f"{what} is not removed: this may lose data, so it needs the flag yes_i_really_mean_it.",
            code="not-confirmed",
        )


# Pools


def list_pools(context: Context, limit: str | None) -> list[PoolView]:
    """The pools whose name matches a limit, by name."""
    matches = matcher(limit)
    return [pool_view(pool) for pool in context.store.all(Pool) if matches((pool.name,))]


def get_pool(context: Context, pool: str) -> list[PoolView]:
    """One pool, as a list of one."""
    return [pool_view(find_pool(context, pool))]


async def add_pool(context: Context, pool: str, pgs: int, replication: Replication | None) -> Message:
    """Make a pool."""
    copies, mincopies = replication or REPLICATION
    await _ask(context, "ceph-pool-add", pool=pool, pgs=pgs, copies=copies, mincopies=mincopies)
    return Message(message=f"The pool {pool} is made.")


async def remove_pool(context: Context, pool: str, confirmed: bool) -> Message:
    """Remove a pool with all of its volumes."""
    _need_confirmation(confirmed, f"The pool {pool}")
    await _ask(context, "ceph-pool-remove", pool=pool)
    return Message(message=f"The pool {pool} is removed, with everything in it.")


# Volumes


def list_volumes(context: Context, pool: str | None, limit: str | None) -> VolumeList:
    """The volumes that satisfy all filters, by pool and name."""
    if pool is None and limit is None:
        return context[VOLUMES].all()
    return context[VOLUMES].those(limit, lambda volume: pool in (None, volume.pool))


def get_volume(context: Context, pool: str, volume: str) -> VolumeList:
    """One volume, as a list of one."""
    return context[VOLUMES].one(find_volume(context, pool, volume))


async def add_volume(context: Context, pool: str, volume: str, size: int | None, source: str | None) -> Message:
    """Make an empty volume, or a copy of another one."""
    if source is not None:
        await _ask(context, "ceph-volume-clone", seconds=LONG_SECONDS, pool=pool, volume=volume, source=source)
        return Message(message=f"The volume {pool}/{volume} is made, a copy of {source}.")
    if size is None:
        raise Invalid("The argument 'size' is missing: a volume needs a size, or a source_volume.")
    await _ask(context, "ceph-volume-add", pool=pool, volume=volume, size=size)
    return Message(message=f"The volume {pool}/{volume} is made.")


async def change_volume(
    context: Context, pool: str, volume: str, name: str | None, size: int | None, shrink: bool
) -> Message:
    """Rename or resize a volume: operations of their own, for guards."""
    if (name is None) == (size is None):
        raise Invalid("Give either a name or a size: one change at a time.")
    arguments: dict[str, Any] = {"pool": pool, "volume": volume}
    if name is not None:
        return await _operation(
            context,
            "ceph-volume-rename",
            arguments | {"new": name},
            f"The volume {pool}/{volume} is now called {name}.",
        )
    return await _operation(
        context,
        "ceph-volume-resize",
        arguments | {"size": size, "shrink": shrink},
        f"The volume {pool}/{volume} has {size} bytes.",
    )


async def _operation(context: Context, name: str, arguments: dict[str, Any], done: str) -> Message:
    """An operation whose name the route does not tell, and which is also that of the command."""

    async def act() -> Message:
        await _ask(context, name, seconds=LONG_SECONDS, **arguments)
        return Message(message=done)

    message: Message = await context.operations.run(context, name, arguments, act)
    return message


async def remove(context: Context, pool: str, volume: str) -> Message:
    """Remove a volume."""
    await remove_volume(context, pool, volume)
    return Message(message=f"The volume {pool}/{volume} is removed.")


# Snapshots


def list_snapshots(context: Context, pool: str | None, volume: str | None, limit: str | None) -> SnapshotList:
    """The snapshots that satisfy all filters, by pool, volume and name."""
    if pool is None and volume is None and limit is None:
        return context[SNAPSHOTS].all()
    return context[SNAPSHOTS].those(
        limit, lambda snapshot: pool in (None, snapshot.pool) and volume in (None, snapshot.volume)
    )


def get_snapshot(context: Context, pool: str, volume: str, snapshot: str) -> SnapshotList:
    """One snapshot, as a list of one."""
    found = context.store.get(Snapshot, pool, volume, snapshot)
    if found is None:
        raise NotFound("snapshot", f"{pool}/{volume}@{snapshot}")
    return context[SNAPSHOTS].one(found)


async def add_snapshot(context: Context, pool: str, volume: str, snapshot: str) -> Message:
    """Take a snapshot of a volume."""
    await _ask(context, "ceph-snapshot-add", pool=pool, volume=volume, snapshot=snapshot)
    return Message(message=f"The snapshot {pool}/{volume}@{snapshot} is taken.")


async def rename_snapshot(context: Context, pool: str, volume: str, snapshot: str, name: str) -> Message:
    """Give a snapshot another name."""
    await _ask(context, "ceph-snapshot-rename", pool=pool, volume=volume, snapshot=snapshot, new=name)
    return Message(message=f"The snapshot {pool}/{volume}@{snapshot} is now called {name}.")


async def remove_snapshot(context: Context, pool: str, volume: str, snapshot: str) -> Message:
    """Remove a snapshot."""
    arguments = {"pool": pool, "volume": volume, "snapshot": snapshot}
    await _ask(context, "ceph-snapshot-remove", seconds=LONG_SECONDS, **arguments)
    return Message(message=f"The snapshot {pool}/{volume}@{snapshot} is removed.")


async def rollback(context: Context, pool: str, volume: str, snapshot: str) -> Message:
    """Let a volume be again what it was at a snapshot."""
    arguments = {"pool": pool, "volume": volume, "snapshot": snapshot}
    await _ask(context, "ceph-snapshot-rollback", seconds=LONG_SECONDS, **arguments)
    return Message(message=f"The volume {pool}/{volume} is again what it was at {snapshot}.")
