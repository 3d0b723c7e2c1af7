"""The rules for storage: checks of requests, the node commands that carry them out, and access for other plugins."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, TypeVar

from pvcd import Conflict, Context, Failed, Invalid, Message, NotFound, PvcdError, Refused, matcher
from pvcd_plugins.ceph.cluster import DEAD_CLIENT_SECONDS, CephUnavailable, Lock, Monitors
from pvcd_plugins.ceph.components import CLUSTER, MAPPING
from pvcd_plugins.ceph.operations import RENAME, RESIZE
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

# fmt: off
__all__ = [
    "CLUSTER", "DEAD_CLIENT_SECONDS", "MAPPING", "CephSettings", "Lock", "Monitors", "Pool", "Snapshot", "Volume",
]
# fmt: on

log = logging.getLogger(__name__)
R = TypeVar("R")
REFRESH_SECONDS = 10.0
"""Limit for updating the mirror of single volumes."""
CALLS = 4
"""The most calls to Ceph that a short node command makes one after the other, each with its own deadline."""
LONG_SECONDS = 2 * 3600.0
"""Limit for commands that take longer on a larger volume."""
OSD_SECONDS = 900.0
"""Limit for a node to make or wipe an OSD."""
DRAIN_SECONDS = 7 * 86400.0
DRAIN_POLL_SECONDS = 2.0
REPLICATION = Replication(copies=3, mincopies=2)


class NoSpace(Conflict):
    """A pool has no room for a volume."""

    code = "pool-full"

    def __init__(self, pool: str, wanted: int, free: int) -> None:
        super().__init__(f"Cannot allocate {wanted} bytes in pool {pool!r}: only {free} bytes are free.")


async def _ask(context: Context, verb: str, *, seconds: float | None = None, **arguments: Any) -> Any:
    """Let the primary run a node command."""
    deadline = seconds or CALLS * context.settings.of(CephSettings).deadline
    return await context.node_commands.ask_primary(verb, seconds=deadline, **arguments)


def _existing(record: R | None, kind: str, name: str) -> R:
    if record is None:
        raise NotFound(kind, name)
    return record


# For other plugins


def find_pool(context: Context, pool: str) -> Pool:
    """Return the pool of this exact name from the mirror."""
    return _existing(context.store.get(Pool, pool), "pool", pool)


def find_volume(context: Context, pool: str, volume: str) -> Volume:
    """Return the volume of this exact name from the mirror."""
    return _existing(context.store.get(Volume, pool, volume), "volume", f"{pool}/{volume}")


async def remove_volume(context: Context, pool: str, volume: str) -> None:
    """Remove a volume without asking guards."""
    await _ask(context, "ceph-volume-remove", seconds=LONG_SECONDS, pool=pool, volume=volume)


async def check_removal(context: Context, pool: str, volume: str) -> None:
    """Raise what would keep a volume from being removed now."""
    await _ask(context, "ceph-volume-check-removal", pool=pool, volume=volume)


async def refresh_volumes(context: Context, volumes: Iterable[tuple[str, str]]) -> None:
    """Update the mirror of volumes (pool and name) that a task worker has created or removed.

    If that fails, the next refresh shows them.
    """
    by_pool: dict[str, list[str]] = {}
    for pool, volume in volumes:
        by_pool.setdefault(pool, []).append(volume)
    for pool, names in by_pool.items():
        try:
            await _ask(context, "ceph-volume-refresh", seconds=REFRESH_SECONDS, pool=pool, volumes=names)
        except PvcdError as error:
            log.info("volumes %s of pool %s are mirrored by the next refresh: %s", ", ".join(names), pool, error)


async def locks(context: Context, pool: str, volume: str) -> list[Lock]:
    """Return the current locks of a volume."""
    return [Lock(**lock) for lock in await _ask(context, "ceph-volume-locks", pool=pool, volume=volume)]


async def clear_locks(context: Context, pool: str, volume: str) -> list[Lock]:
    """Break all locks of a volume, block their holders from ever writing again, and return the locks."""
    return [Lock(**lock) for lock in await _ask(context, "ceph-volume-unlock", pool=pool, volume=volume)]


def libvirt_user(context: Context) -> str:
    """Return the Ceph user of guests."""
    return context.settings.of(CephSettings).libvirt_user


async def libvirt_key(context: Context) -> str:
    """Return the key of that user in base64, from Ceph; only on a node."""
    return await context[CLUSTER].auth_key(libvirt_user(context))


async def monitors(context: Context) -> Monitors:
    """Return the id of the cluster and the addresses of its monitors, from Ceph; only on a node."""
    return await context[CLUSTER].monitors()


# The cluster


def get_status(context: Context) -> StatusView:
    """Return the status of Ceph."""
    return status_view(context, _known(context))


def get_utilization(context: Context) -> UtilizationView:
    """Return the utilization of Ceph."""
    return utilization_view(context, _known(context))


def _known(context: Context) -> CephStatus:
    """Return the mirror of Ceph; raises `CephUnavailable` before the first refresh."""
    found = context.store.get(CephStatus)
    if found is None or found.status is None or found.utilization is None:
        raise CephUnavailable((found and found.failed_reason) or "Ceph has not been reached yet.")
    return found


async def set_option(context: Context, action: str, option: str) -> Message:
    """Set or unset a flag of all OSDs."""
    await _ask(context, "ceph-option", action=action, option=option)
    return Message(message=f"Option {option!r} {action}.")


# OSDs


def find_osd(context: Context, osd: str) -> Osd:
    """Return the OSD with this id."""
    return _existing(context.store.get(Osd, osd), "OSD", osd)


def list_osds(context: Context, limit: str | None) -> list[OsdView]:
    """Return the OSDs whose id matches a limit, by id."""
    matches = matcher(limit)
    found = [osd for osd in context.store.all(Osd) if matches((str(osd.id),))]
    return [osd_view(osd) for osd in sorted(found, key=lambda osd: osd.id)]


def get_osd(context: Context, osd: str) -> list[OsdView]:
    """Return one OSD, as a list of one."""
    return [osd_view(find_osd(context, osd))]


def get_osd_state(context: Context, osd: str) -> OsdState:
    """Return whether an OSD is in and up."""
    return osd_state(find_osd(context, osd))


async def add_osd(context: Context, node: str, device: str, weight: float) -> Message:
    """Let a node make an OSD of a device."""
    nodes.find(context, node)
    osd = await context.node_commands.ask(node, "ceph-osd-add", seconds=OSD_SECONDS, device=device, weight=weight)
    warnings = None
    try:
        await _ask(context, "ceph-osd-record")
    except Failed as error:
        warnings = [f"OSD {osd} is not listed yet: {error.sentence}"]
    return Message(message=f"OSD {osd} added on device {device!r} of node {node!r}.", warnings=warnings)


async def set_osd_state(context: Context, osd: str, state: str) -> Message:
    """Set an OSD in or out."""
    await _ask(context, "ceph-osd-state", osd=_osd_id(osd), state=state)
    return Message(message=f"OSD {osd} set {state}.")


async def remove_osd(context: Context, osd: str, confirmed: bool) -> Message:
    """Drain an OSD, let its node stop and wipe it, and purge it."""
    _require_confirmation(confirmed, f"OSD {osd}")
    warnings = await _ask(context, "ceph-osd-remove", seconds=DRAIN_SECONDS, osd=_osd_id(osd))
    return Message(message=f"OSD {osd} removed.", warnings=warnings or None)


def _osd_id(osd: str) -> int:
    """Return the id of an OSD, which may not exist."""
    if not (osd.isascii() and osd.isdecimal() and len(osd) < 10 and str(int(osd)) == osd):
        raise NotFound("OSD", osd)
    return int(osd)


def _require_confirmation(confirmed: bool, what: str) -> None:
    if not confirmed:
        raise Refused(
            f"Cannot remove {what}: data may be lost. Add the flag yes_i_really_mean_it to confirm.",
            code="not-confirmed",
        )


# Pools


def list_pools(context: Context, limit: str | None) -> list[PoolView]:
    """Return the pools whose name matches a limit, by name."""
    matches = matcher(limit)
    return [pool_view(pool) for pool in context.store.all(Pool) if matches((pool.name,))]


def get_pool(context: Context, pool: str) -> list[PoolView]:
    """Return one pool, as a list of one."""
    return [pool_view(find_pool(context, pool))]


async def add_pool(context: Context, pool: str, pgs: int, replication: Replication | None) -> Message:
    """Add a pool."""
    copies, mincopies = replication or REPLICATION
    await _ask(context, "ceph-pool-add", pool=pool, pgs=pgs, copies=copies, mincopies=mincopies)
    return Message(message=f"Pool {pool!r} added.")


async def remove_pool(context: Context, pool: str, confirmed: bool) -> Message:
    """Remove a pool with all of its volumes."""
    _require_confirmation(confirmed, f"pool {pool!r}")
    await _ask(context, "ceph-pool-remove", pool=pool)
    return Message(message=f"Pool {pool!r} removed with all its volumes.")


# Volumes


def list_volumes(context: Context, pool: str | None, limit: str | None) -> VolumeList:
    """Return the volumes that match all filters, by pool and name."""
    if pool is None and limit is None:
        return context[VOLUMES].all()
    return context[VOLUMES].filter(limit, lambda volume: pool in (None, volume.pool))


def get_volume(context: Context, pool: str, volume: str) -> VolumeList:
    """Return one volume, as a list of one."""
    return context[VOLUMES].one(find_volume(context, pool, volume))


async def add_volume(context: Context, pool: str, volume: str, size: int | None, source: str | None) -> Message:
    """Add an empty volume, or a copy of another one."""
    if source is not None:
        await _ask(context, "ceph-volume-clone", seconds=LONG_SECONDS, pool=pool, volume=volume, source=source)
        return Message(message=f"Volume '{pool}/{volume}' added as a copy of '{pool}/{source}'.")
    if size is None:
        raise Invalid("A new volume requires size or source_volume.")
    await _ask(context, "ceph-volume-add", pool=pool, volume=volume, size=size)
    return Message(message=f"Volume '{pool}/{volume}' added.")


async def change_volume(
    context: Context, pool: str, volume: str, name: str | None, size: int | None, shrink: bool
) -> Message:
    """Rename or resize a volume, which are separate operations."""
    if (name is None) == (size is None):
        raise Invalid("A change of a volume requires either name or size.")
    arguments: dict[str, Any] = {"pool": pool, "volume": volume}
    title = f"Volume '{pool}/{volume}'"
    if name is not None:
        return await _operation(context, RENAME, arguments | {"new": name}, f"{title} renamed to {name!r}.")
    values = arguments | {"size": size, "shrink": shrink}
    return await _operation(context, RESIZE, values, f"{title} resized to {size} bytes.")


async def _operation(context: Context, name: str, arguments: dict[str, Any], done: str) -> Message:
    """Run an operation that shares its route with another one, and its name with the node command."""

    async def act() -> Message:
        await _ask(context, name, seconds=LONG_SECONDS, **arguments)
        return Message(message=done)

    message: Message = await context.operations.run(context, name, arguments, act)
    return message


async def remove(context: Context, pool: str, volume: str) -> Message:
    """Remove a volume."""
    await remove_volume(context, pool, volume)
    return Message(message=f"Volume '{pool}/{volume}' removed.")


# Snapshots


def list_snapshots(context: Context, pool: str | None, volume: str | None, limit: str | None) -> SnapshotList:
    """Return the snapshots that match all filters, by pool, volume and name."""
    if pool is None and volume is None and limit is None:
        return context[SNAPSHOTS].all()
    return context[SNAPSHOTS].filter(
        limit, lambda snapshot: pool in (None, snapshot.pool) and volume in (None, snapshot.volume)
    )


def get_snapshot(context: Context, pool: str, volume: str, snapshot: str) -> SnapshotList:
    """Return one snapshot, as a list of one."""
    found = context.store.get(Snapshot, pool, volume, snapshot)
    return context[SNAPSHOTS].one(_existing(found, "snapshot", f"{pool}/{volume}@{snapshot}"))


async def add_snapshot(context: Context, pool: str, volume: str, snapshot: str) -> Message:
    """Take a snapshot of a volume."""
    await _ask(context, "ceph-snapshot-add", pool=pool, volume=volume, snapshot=snapshot)
    return Message(message=f"Snapshot '{pool}/{volume}@{snapshot}' added.")


async def rename_snapshot(context: Context, pool: str, volume: str, snapshot: str, name: str) -> Message:
    """Rename a snapshot."""
    await _ask(context, "ceph-snapshot-rename", pool=pool, volume=volume, snapshot=snapshot, new=name)
    return Message(message=f"Snapshot '{pool}/{volume}@{snapshot}' renamed to {name!r}.")


async def remove_snapshot(context: Context, pool: str, volume: str, snapshot: str) -> Message:
    """Remove a snapshot."""
    arguments = {"pool": pool, "volume": volume, "snapshot": snapshot}
    await _ask(context, "ceph-snapshot-remove", seconds=LONG_SECONDS, **arguments)
    return Message(message=f"Snapshot '{pool}/{volume}@{snapshot}' removed.")


async def rollback(context: Context, pool: str, volume: str, snapshot: str) -> Message:
    """Roll a volume back to a snapshot."""
    arguments = {"pool": pool, "volume": volume, "snapshot": snapshot}
    await _ask(context, "ceph-snapshot-rollback", seconds=LONG_SECONDS, **arguments)
    return Message(message=f"Volume '{pool}/{volume}' rolled back to snapshot {snapshot!r}.")
