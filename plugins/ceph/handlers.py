"""What the primary does with Ceph for all nodes, and what only the node with a disk can do.

Each answer acts through the door, and then lets the records say what is so: also after a refusal, for then they were
wrong. Whatever is interrupted is seen by the next refresh, and can be asked for again.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from pvcd import Conflict, Context, Failed, Handlers, Locked, NotFound, Primary, PvcdError, Refused, Requeue
from pvcd_plugins.ceph.cluster import AlreadyThere, InUse, Lock
from pvcd_plugins.ceph.cluster import facts as said
from pvcd_plugins.ceph.components import CLUSTER, OSD_HOST
from pvcd_plugins.ceph.records import Volume
from pvcd_plugins.ceph.refresh import MIRROR, is_ours
from pvcd_plugins.ceph.service import DRAIN_POLL, OSD_SECONDS, NoSpace
from pvcd_plugins.ceph.settings import CephSettings
from pvcd_plugins.node import service as nodes

primary = Handlers(scope="primary")
handlers = Handlers()
SETTLING = 30
"""Seconds that the monitors may take to see that an OSD has ended."""


@primary.on(Primary)
async def refresh(context: Context, lease: Primary) -> Requeue:
    """Look at Ceph at intervals, for as long as this node is primary."""
    await context[MIRROR].refresh(context)
    return Requeue(context.settings.of(CephSettings).refresh)


@contextlib.asynccontextmanager
async def recorded(look: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Act in this block; afterwards let the records say what is so, also when it was refused."""
    try:
        yield
    except Refused:
        with contextlib.suppress(PvcdError):
            await look()
        raise
    await look()


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
    """Whether an OSD has its data on a device of this node."""
    return osd in await context[OSD_HOST].local_osds()


@handlers.node_command("ceph-osd-destroy")
async def destroy_osd(context: Context, osd: int) -> None:
    """Stop an OSD of this node and wipe its device; whoever asks knows that it is safe."""
    await context[OSD_HOST].remove_osd(osd)


@primary.node_command("ceph-osd-record")
async def record_osds(context: Context) -> None:
    """Let the records know of an OSD that a node made."""
    await context[MIRROR].osds(context)


@primary.node_command("ceph-osd-state")
async def set_osd_state(context: Context, osd: int, state: str) -> None:
    """Set an OSD in or out."""
    cluster = context[CLUSTER]
    async with recorded(lambda: context[MIRROR].osds(context)):
        await (cluster.osd_in(osd) if state == "in" else cluster.osd_out(osd))


@primary.node_command("ceph-osd-remove")
async def remove_osd(context: Context, osd: int) -> list[str]:
    """Drain an OSD, let its node destroy it, and forget it; returns warnings."""
    mirror = context[MIRROR]
    if osd in mirror.progress:
        raise Locked(f"OSD {osd} is being removed already: {mirror.progress[osd]}.", code="osd-busy")
    async with recorded(lambda: mirror.osds(context)):
        mirror.progress[osd] = "about to be drained"
        try:
            found = _the(osd, await mirror.osds(context))
            await _need_owner(context, found)
            await context[CLUSTER].osd_out(osd)
            await _drain(context, osd)
            return await _destroy(context, found)
        finally:
            del mirror.progress[osd]


def _the(osd: int, osds: list[said.Osd]) -> said.Osd:
    for each in osds:
        if each.id == osd:
            return each
    raise NotFound("OSD", osd)


def _owner(context: Context, osd: said.Osd) -> str | None:
    """The node that can destroy an OSD; None for one that is down, as is its node."""
    node = context.store.get(nodes.Node, osd.node) if osd.node else None
    if node and nodes.daemon_state(context, node) is nodes.DaemonState.RUN:
        return node.name
    if osd.up:
        raise Conflict(
            f"OSD {osd.id} runs on {osd.node}, whose agent does not run, so nobody could stop it.",
            code="node-not-running",
        )
    return None


async def _need_owner(context: Context, osd: said.Osd) -> None:
    """Refuse an OSD that runs where nobody of ours could stop it, before anything is done."""
    owner = _owner(context, osd)
    if (
        owner
        and osd.up
        and not await context.node_commands.ask(owner, "ceph-osd-local", seconds=OSD_SECONDS, osd=osd.id)
    ):
        raise Conflict(
            f"OSD {osd.id} has its data on no device of node {owner}: whoever made it has to remove it.",
            code="osd-not-local",
        )


async def _drain(context: Context, osd: int) -> None:
    """Return when no data would lose a copy without this OSD, which is out."""
    cluster, mirror = context[CLUSTER], context[MIRROR]
    while True:
        try:
            now = next((each for each in await mirror.osds(context) if each.id == osd), None)
            if now is None:
                return
            if now.in_:
                raise Conflict(f"OSD {osd} was set in again, so it is not removed.", code="osd-in")
            named = osd in await cluster.safe_to_destroy([osd])
            unready = _unready(await cluster.status(), up=now.up)
            if named and not unready:
                return
            mirror.progress[osd] = f"draining: it has {now.pgs} placement groups, and {unready} of all are not ready"
        except Failed as error:  # which is no reason to think that it is safe, nor to give up
            mirror.progress[osd] = f"draining: {error.sentence}"
        await context.clock.sleep(DRAIN_POLL)


def _unready(status: said.Status, *, up: bool) -> int:
    """How many placement groups may still need what an OSD has that is in none of them.

    Ceph forgets what an OSD stores as soon as it is out, and calls it safe while objects wait to be copied from it. So
    all must be clean; without one that is down, which cannot give anything, they need only know where all objects are.
    """
    wanted = {"active", "clean"} if up else {"active"}
    count = 0
    for state, number in status.pgs_by_state.items():
        words = set(state.split("+"))
        if not wanted <= words or words & {"stale", "recovery_unfound", "backfill_unfound"}:
            count += number
    return count


async def _destroy(context: Context, osd: said.Osd) -> list[str]:
    """Stop and forget an OSD that is drained."""
    mirror = context[MIRROR]
    mirror.progress[osd.id] = "drained, being destroyed"
    warnings = []
    owner = _owner(context, osd)
    if owner:
        await context.node_commands.ask(owner, "ceph-osd-destroy", seconds=OSD_SECONDS, osd=osd.id)
    else:
        warnings.append(f"The agent of {osd.node} does not run, so the device of OSD {osd.id} is not wiped.")
    for _ in range(SETTLING):
        with contextlib.suppress(InUse):
            await context[CLUSTER].purge_osd(osd.id)
            return warnings
        await context.clock.sleep(1.0)
    await context[CLUSTER].purge_osd(osd.id)
    return warnings


# Pools


@primary.node_command("ceph-pool-add")
async def add_pool(context: Context, pool: str, pgs: int, copies: int, mincopies: int) -> None:
    """Make a pool."""
    async with recorded(lambda: context[MIRROR].pools(context)):
        await context[CLUSTER].create_pool(pool, pgs, copies, mincopies)


@primary.node_command("ceph-pool-remove")
async def remove_pool(context: Context, pool: str) -> None:
    """Remove a pool of ours, with all of its volumes."""
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
    """Make an empty volume that the pool has room for."""
    await _need_space(context, pool, size)
    async with _volumes(context, pool, volume):
        await context[CLUSTER].create_volume(pool, volume, size)


@primary.node_command("ceph-volume-clone")
async def clone_volume(context: Context, pool: str, volume: str, source: str) -> None:
    """Make a copy of a volume, or go on with one that was interrupted."""
    mirror, path = context[MIRROR], Volume.at(pool, volume)
    if path in mirror.cloning:
        raise AlreadyThere("volume", volume)
    mirror.cloning.add(path)
    try:
        async with _volumes(context, pool, volume):
            if await _is_unfinished(context, pool, volume, source):
                return await context[CLUSTER].flatten_volume(pool, volume)
            await _need_space(context, pool, (await context[CLUSTER].volume(pool, source)).size)
            await context[CLUSTER].clone_volume(pool, source, volume)
    finally:
        mirror.cloning.discard(path)


async def _is_unfinished(context: Context, pool: str, volume: str, source: str) -> bool:
    """Whether a clone of that source was begun and is not done."""
    try:
        parent = (await context[CLUSTER].volume(pool, volume)).parent
    except NotFound:
        return False
    return parent is not None and parent.startswith(f"{pool}/{source}@")


@primary.node_command("ceph-volume-resize")
async def resize_volume(context: Context, pool: str, volume: str, size: int, shrink: bool) -> None:
    """Change the size of a volume; the pool must have room for what it grows by."""
    async with _volumes(context, pool, volume):
        now = await context[CLUSTER].volume(pool, volume)
        await _need_space(context, pool, size - now.size)
        await context[CLUSTER].resize_volume(pool, volume, size, shrink=shrink)


async def _need_space(context: Context, pool: str, size: int) -> None:
    """Refuse more than a pool has room for, and a pool that is not ours."""
    for each in await context[CLUSTER].pools():
        if each.name == pool and is_ours(each):
            if size > each.free_bytes:
                raise NoSpace(pool, size, each.free_bytes)
            return
    raise NotFound("pool", pool)


@primary.node_command("ceph-volume-rename")
async def rename_volume(context: Context, pool: str, volume: str, new: str) -> None:
    """Give a volume another name."""
    async with _volumes(context, pool, volume, new):
        await context[CLUSTER].rename_volume(pool, volume, new)


@primary.node_command("ceph-volume-remove")
async def remove_volume(context: Context, pool: str, volume: str) -> None:
    """Remove a volume that nobody has open."""
    async with _volumes(context, pool, volume):
        await context[CLUSTER].remove_volume(pool, volume)


@primary.node_command("ceph-volume-look")
async def look_at_volumes(context: Context, pool: str, volumes: list[str]) -> None:
    """Record volumes that somebody else has made or removed."""
    await context[MIRROR].volumes(context, pool, *volumes)


@primary.node_command("ceph-volume-locks")
async def locks(context: Context, pool: str, volume: str) -> list[Lock]:
    """The locks of a volume."""
    return await context[CLUSTER].locks(pool, volume)


@primary.node_command("ceph-volume-unlock")
async def clear_locks(context: Context, pool: str, volume: str) -> list[Lock]:
    """Break every lock of a volume; whoever asks knows that no holder lives."""
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
    """Give a snapshot another name."""
    async with _volumes(context, pool, volume):
        await context[CLUSTER].rename_snapshot(pool, volume, snapshot, new)


@primary.node_command("ceph-snapshot-remove")
async def remove_snapshot(context: Context, pool: str, volume: str, snapshot: str) -> None:
    """Remove a snapshot."""
    async with _volumes(context, pool, volume):
        await context[CLUSTER].remove_snapshot(pool, volume, snapshot)


@primary.node_command("ceph-snapshot-rollback")
async def rollback(context: Context, pool: str, volume: str, snapshot: str) -> None:
    """Let a volume be again what it was."""
    async with _volumes(context, pool, volume):
        await context[CLUSTER].rollback(pool, volume, snapshot)
