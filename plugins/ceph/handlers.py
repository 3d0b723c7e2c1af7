"""The part of the primary, which uses Ceph for all nodes, and of the node that has the disk of an OSD.

Each node command acts through the door and then updates the mirror, even after a refusal, which shows that the mirror
was outdated. After an interruption the next refresh shows the state of Ceph, and the request can be repeated.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from pvcd import Conflict, Context, Failed, Handlers, Locked, NotFound, Primary, PvcdError, Refused, Requeue
from pvcd_plugins.ceph.cluster import LEFTOVER, OPEN, HasSnapshots, Incomplete, InUse, Lock
from pvcd_plugins.ceph.cluster import facts as ceph
from pvcd_plugins.ceph.components import CLUSTER, OSD_HOST
from pvcd_plugins.ceph.records import Volume
from pvcd_plugins.ceph.refresh import MIRROR, is_ours
from pvcd_plugins.ceph.service import DRAIN_POLL_SECONDS, OSD_SECONDS, NoSpace
from pvcd_plugins.ceph.settings import CephSettings
from pvcd_plugins.node import service as nodes

primary = Handlers(scope="primary")
handlers = Handlers()
SETTLE_SECONDS = 30
"""Time in which the monitors notice that an OSD has stopped."""


@primary.on(Primary)
async def refresh(context: Context, lease: Primary) -> Requeue:
    """Refresh the mirror periodically while this node is primary."""
    await context[MIRROR].refresh(context)
    return Requeue(context.settings.of(CephSettings).refresh_seconds)


@contextlib.asynccontextmanager
async def recorded(read: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run this block and then update the mirror with `read`, even if the block was refused."""
    try:
        yield
    except Refused:
        with contextlib.suppress(PvcdError):
            await read()
        raise
    await read()


@primary.node_command("ceph-option")
async def set_option(context: Context, action: str, option: str) -> None:
    """Set or unset a flag of all OSDs."""
    cluster = context[CLUSTER]
    await (cluster.set_option(option) if action == "set" else cluster.unset_option(option))
    await context[MIRROR].status(context)


# OSDs


@handlers.node_command("ceph-osd-add")
async def add_osd(context: Context, device: str, weight: float) -> int:
    """Make an OSD of an unused device of this node."""
    return await context[OSD_HOST].prepare_osd(device, weight)


@handlers.node_command("ceph-osd-local")
async def is_local(context: Context, osd: int) -> bool:
    """Tell whether an OSD has its data on a device of this node."""
    return osd in await context[OSD_HOST].local_osds()


@handlers.node_command("ceph-osd-destroy")
async def destroy_osd(context: Context, osd: int) -> None:
    """Stop an OSD of this node and wipe its device; the caller makes sure that it is safe."""
    await context[OSD_HOST].remove_osd(osd)


@primary.node_command("ceph-osd-record")
async def record_osds(context: Context) -> None:
    """Record an OSD that a node made."""
    await context[MIRROR].osds(context)


@primary.node_command("ceph-osd-state")
async def set_osd_state(context: Context, osd: int, state: str) -> None:
    """Set an OSD in or out."""
    cluster = context[CLUSTER]
    async with recorded(lambda: context[MIRROR].osds(context)):
        await (cluster.osd_in(osd) if state == "in" else cluster.osd_out(osd))


@primary.node_command("ceph-osd-remove")
async def remove_osd(context: Context, osd: int) -> list[str]:
    """Drain an OSD, let its node destroy it, and purge it; returns warnings."""
    mirror = context[MIRROR]
    if osd in mirror.progress:
        raise Locked(f"Cannot remove OSD {osd}: its removal is under way ({mirror.progress[osd]}).", code="osd-busy")
    async with recorded(lambda: mirror.osds(context)):
        mirror.progress[osd] = "starting"
        try:
            found = _find(osd, await mirror.osds(context))
            await _require_owner(context, found)
            await context[CLUSTER].osd_out(osd)
            await _drain(context, osd)
            return await _destroy(context, found)
        finally:
            del mirror.progress[osd]


def _find(osd: int, osds: list[ceph.Osd]) -> ceph.Osd:
    for each in osds:
        if each.id == osd:
            return each
    raise NotFound("OSD", osd)


def _owner(context: Context, osd: ceph.Osd) -> str | None:
    """Return the node that can destroy an OSD; None if both the OSD and its node are down."""
    node = context.store.get(nodes.Node, osd.node) if osd.node else None
    if node and nodes.daemon_state(context, node) is nodes.DaemonState.RUN:
        return node.name
    if osd.up:
        raise Conflict(
            f"Cannot remove OSD {osd.id}: the agent of its node {osd.node!r} does not run. Start the agent first.",
            code="node-not-running",
        )
    return None


async def _require_owner(context: Context, osd: ceph.Osd) -> None:
    """Refuse a running OSD that no agent can stop, before anything is changed."""
    owner = _owner(context, osd)
    if (
        owner
        and osd.up
        and not await context.node_commands.ask(owner, "ceph-osd-local", seconds=OSD_SECONDS, osd=osd.id)
    ):
        raise Conflict(
            f"Cannot remove OSD {osd.id}: its data is on no device of node {owner!r}. Remove it with Ceph's tools.",
            code="osd-not-local",
        )


async def _drain(context: Context, osd: int) -> None:
    """Return when no data would lose a copy without an OSD that is out."""
    cluster, mirror = context[CLUSTER], context[MIRROR]
    while True:
        try:
            now = next((each for each in await mirror.osds(context) if each.id == osd), None)
            if now is None:
                return
            if now.in_:
                raise Conflict(f"Cannot remove OSD {osd}: it was set in again.", code="osd-in")
            safe = osd in await cluster.safe_to_destroy([osd])
            unready = _unready(await cluster.status(), up=now.up)
            if safe and not unready:
                return
            mirror.progress[osd] = f"draining: {now.pgs} placement groups left, {unready} in the cluster not ready"
        except Failed as error:  # an error says nothing about safety, and the drain goes on
            mirror.progress[osd] = f"draining: {error.sentence}"
        await context.clock.sleep(DRAIN_POLL_SECONDS)


def _unready(status: ceph.Status, *, up: bool) -> int:
    """Return the number of placement groups that may still need the data of an OSD that is out.

    Once an OSD is out, Ceph calls it safe while objects still wait to be copied from it. Therefore all groups must be
    clean. Nothing can be copied from an OSD that is down, so then they must only be active and have no unfound objects.
    """
    wanted = {"active", "clean"} if up else {"active"}
    count = 0
    for state, number in status.pgs_by_state.items():
        words = set(state.split("+"))
        if not wanted <= words or words & {"stale", "recovery_unfound", "backfill_unfound"}:
            count += number
    return count


async def _destroy(context: Context, osd: ceph.Osd) -> list[str]:
    """Destroy and purge an OSD that is drained."""
    mirror = context[MIRROR]
    mirror.progress[osd.id] = "drained, being destroyed"
    warnings = []
    owner = _owner(context, osd)
    if owner:
        await context.node_commands.ask(owner, "ceph-osd-destroy", seconds=OSD_SECONDS, osd=osd.id)
    else:
        reason = f"the agent of node {osd.node!r} does not run" if osd.node else "Ceph does not know its node"
        warnings.append(f"The device of OSD {osd.id} was not wiped: {reason}.")
    for _ in range(SETTLE_SECONDS):
        with contextlib.suppress(InUse):
            await context[CLUSTER].purge_osd(osd.id)
            return warnings
        await context.clock.sleep(1.0)
    await context[CLUSTER].purge_osd(osd.id)
    return warnings


# Pools


@primary.node_command("ceph-pool-add")
async def add_pool(context: Context, pool: str, pgs: int, copies: int, mincopies: int) -> None:
    """Add a pool."""
    async with recorded(lambda: context[MIRROR].pools(context)):
        await context[CLUSTER].create_pool(pool, pgs, copies, mincopies)


@primary.node_command("ceph-pool-remove")
async def remove_pool(context: Context, pool: str) -> None:
    """Remove a pool for volumes, with all of its volumes."""
    mirror = context[MIRROR]
    if pool not in [each.name for each in await mirror.pools(context)]:
        raise NotFound("pool", pool)
    await context[CLUSTER].remove_pool(pool)
    await mirror.pools(context)


# Volumes


def _volumes(context: Context, pool: str, *names: str) -> contextlib.AbstractAsyncContextManager[None]:
    return recorded(lambda: context[MIRROR].volumes(context, pool, *names))


@primary.node_command("ceph-volume-add")
async def add_volume(context: Context, pool: str, volume: str, size: int) -> None:
    """Add an empty volume that fits into the pool."""
    await _require_space(context, pool, size)
    async with _volumes(context, pool, volume):
        await context[CLUSTER].create_volume(pool, volume, size)


@primary.node_command("ceph-volume-clone")
async def clone_volume(context: Context, pool: str, volume: str, source: str) -> None:
    """Copy a volume, or complete an interrupted copy."""
    mirror, path = context[MIRROR], Volume.at(pool, volume)
    if path in mirror.cloning:
        raise Conflict(f"Cannot add volume '{pool}/{volume}': another request is adding it.", code="volume-exists")
    mirror.cloning.add(path)
    try:
        async with _volumes(context, pool, volume):
            if await _is_interrupted(context, pool, volume, source):
                return await context[CLUSTER].flatten_volume(pool, volume)
            await _require_space(context, pool, (await context[CLUSTER].volume(pool, source)).size)
            await context[CLUSTER].clone_volume(pool, source, volume)
    finally:
        mirror.cloning.discard(path)


async def _is_interrupted(context: Context, pool: str, volume: str, source: str) -> bool:
    """Tell whether a volume is an interrupted clone of a source."""
    try:
        parent = (await context[CLUSTER].volume(pool, volume)).parent
    except NotFound:
        return False
    return parent is not None and parent.startswith(f"{pool}/{source}@")


@primary.node_command("ceph-volume-resize")
async def resize_volume(context: Context, pool: str, volume: str, size: int, shrink: bool) -> None:
    """Resize a volume, which must fit into the pool."""
    async with _volumes(context, pool, volume):
        now = await context[CLUSTER].volume(pool, volume)
        await _require_space(context, pool, size - now.size)
        await context[CLUSTER].resize_volume(pool, volume, size, shrink=shrink)


async def _require_space(context: Context, pool: str, size: int) -> None:
    """Refuse more than the free space of a pool, and a pool that is not for volumes."""
    for each in await context[CLUSTER].pools():
        if each.name == pool and is_ours(each):
            if size > each.free_bytes:
                raise NoSpace(pool, size, each.free_bytes)
            return
    raise NotFound("pool", pool)


@primary.node_command("ceph-volume-rename")
async def rename_volume(context: Context, pool: str, volume: str, new: str) -> None:
    """Rename a volume."""
    async with _volumes(context, pool, volume, new):
        await context[CLUSTER].rename_volume(pool, volume, new)


@primary.node_command("ceph-volume-remove")
async def remove_volume(context: Context, pool: str, volume: str) -> None:
    """Remove a volume that no client has open."""
    async with _volumes(context, pool, volume):
        await context[CLUSTER].remove_volume(pool, volume)


@primary.node_command("ceph-volume-check-removal")
async def check_removal(context: Context, pool: str, volume: str) -> None:
    """Raise what would keep a volume from being removed: its snapshots, or a client that has it open."""
    cluster, title = context[CLUSTER], f"{pool}/{volume}"
    with contextlib.suppress(Incomplete):  # it can be removed
        if not all(each.name.startswith(LEFTOVER) for each in await cluster.snapshots(pool, volume)):
            raise HasSnapshots(title)
        if await cluster.watchers(pool, volume):
            raise InUse("volume", f"remove volume {title!r}", OPEN)


@primary.node_command("ceph-volume-refresh")
async def refresh_volumes(context: Context, pool: str, volumes: list[str]) -> None:
    """Record volumes that were created or removed elsewhere."""
    await context[MIRROR].volumes(context, pool, *volumes)


@primary.node_command("ceph-volume-locks")
async def locks(context: Context, pool: str, volume: str) -> list[Lock]:
    """Return the locks of a volume."""
    return await context[CLUSTER].locks(pool, volume)


@primary.node_command("ceph-volume-unlock")
async def clear_locks(context: Context, pool: str, volume: str) -> list[Lock]:
    """Break every lock of a volume; the caller makes sure that no holder runs."""
    found = await context[CLUSTER].locks(pool, volume)
    for lock in found:
        await context[CLUSTER].remove_lock(pool, volume, lock)
    return found


# Snapshots


@primary.node_command("ceph-snapshot-add")
async def add_snapshot(context: Context, pool: str, volume: str, snapshot: str) -> None:
    """Take a snapshot."""
    async with _volumes(context, pool, volume):
        await context[CLUSTER].create_snapshot(pool, volume, snapshot)


@primary.node_command("ceph-snapshot-rename")
async def rename_snapshot(context: Context, pool: str, volume: str, snapshot: str, new: str) -> None:
    """Rename a snapshot."""
    async with _volumes(context, pool, volume):
        await context[CLUSTER].rename_snapshot(pool, volume, snapshot, new)


@primary.node_command("ceph-snapshot-remove")
async def remove_snapshot(context: Context, pool: str, volume: str, snapshot: str) -> None:
    """Remove a snapshot."""
    async with _volumes(context, pool, volume):
        await context[CLUSTER].remove_snapshot(pool, volume, snapshot)


@primary.node_command("ceph-snapshot-rollback")
async def rollback(context: Context, pool: str, volume: str, snapshot: str) -> None:
    """Roll a volume back to a snapshot."""
    async with _volumes(context, pool, volume):
        await context[CLUSTER].rollback(pool, volume, snapshot)
