"""The manual's chapter: storage endpoints. A change is answered when Ceph has carried it out."""

from __future__ import annotations

from pvcd import Context, Message, Routes
from pvcd_plugins.ceph import params, service
from pvcd_plugins.ceph.views import (
    OsdState,
    OsdView,
    PoolView,
    SnapshotList,
    StatusView,
    UtilizationView,
    VolumeList,
)

routes = Routes("/api/v1/storage", tag="Storage")


@routes.get()
async def root(context: Context) -> Message:
    """Show the available storage."""
    return Message(message="Storage: Ceph at /api/v1/storage/ceph.")


@routes.get("/ceph")
async def get_ceph(context: Context) -> StatusView:
    """Show the status of Ceph."""
    return service.get_status(context)


@routes.get("/ceph/status")
async def get_status(context: Context) -> StatusView:
    """Show the status of Ceph; `ceph_data` is the output of `ceph status`."""
    return service.get_status(context)


@routes.get("/ceph/df")
async def get_utilization(context: Context) -> UtilizationView:
    """Show the utilization of Ceph; `ceph_data` is the output of `rados df`."""
    return service.get_utilization(context)


@routes.post("/ceph/cluster-option", operation="ceph-option-{action}")
async def set_option(context: Context, action: params.Action, option: params.Option) -> Message:
    """Set or unset a flag of all OSDs, such as `noout`."""
    return await service.set_option(context, action, option)


@routes.get("/ceph/osd")
async def list_osds(context: Context, limit: params.OsdLimit = None) -> list[OsdView]:
    """List the OSDs whose id matches `limit`, by id."""
    return service.list_osds(context, limit)


@routes.post("/ceph/osd", operation="ceph-osd-add")
async def add_osd(context: Context, node: params.OnNode, device: params.Device, weight: params.Weight) -> Message:
    """Make an OSD of an unused block device of a node; the data on the device is lost."""
    return await service.add_osd(context, node, device, weight)


@routes.get("/ceph/osd/{osd}")
async def get_osd(context: Context, osd: params.OsdId) -> list[OsdView]:
    """Show one OSD, as a list of one."""
    return service.get_osd(context, osd)


@routes.delete("/ceph/osd/{osd}", operation="ceph-osd-remove")
async def remove_osd(
    context: Context, osd: params.OsdId, confirmed: params.Confirmed = False, confirmed_too: params.ConfirmedToo = False
) -> Message:
    """Remove an OSD: set it out, wait until its data has moved, stop it, wipe its device and purge it."""
    return await service.remove_osd(context, osd, confirmed or confirmed_too)


@routes.get("/ceph/osd/{osd}/state")
async def get_osd_state(context: Context, osd: params.OsdId) -> OsdState:
    """Show whether an OSD takes data (`in`), and whether its daemon is up (`up`)."""
    return service.get_osd_state(context, osd)


@routes.post("/ceph/osd/{osd}/state", operation="ceph-osd-{state}")
async def set_osd_state(context: Context, osd: params.OsdId, state: params.InOrOut) -> Message:
    """Set an OSD in or out."""
    return await service.set_osd_state(context, osd, state)


@routes.get("/ceph/pool")
async def list_pools(context: Context, limit: params.PoolLimit = None) -> list[PoolView]:
    """List the pools for volumes whose name matches `limit`, by name."""
    return service.list_pools(context, limit)


@routes.post("/ceph/pool", operation="ceph-pool-add")
async def add_pool(
    context: Context, pool: params.NewPool, pgs: params.Pgs, replcfg: params.Replcfg | None = None
) -> Message:
    """Add a pool for volumes; without `replcfg` it keeps three copies and requires two."""
    return await service.add_pool(context, pool, pgs, replcfg)


@routes.get("/ceph/pool/{pool}")
async def get_pool(context: Context, pool: params.PoolName) -> list[PoolView]:
    """Show one pool, as a list of one."""
    return service.get_pool(context, pool)


@routes.delete("/ceph/pool/{pool}", operation="ceph-pool-remove")
async def remove_pool(
    context: Context,
    pool: params.PoolName,
    confirmed: params.Confirmed = False,
    confirmed_too: params.ConfirmedToo = False,
) -> Message:
    """Remove a pool with all of its volumes."""
    return await service.remove_pool(context, pool, confirmed or confirmed_too)


@routes.get("/ceph/volume")
async def list_volumes(context: Context, pool: params.InPool = None, limit: params.VolumeLimit = None) -> VolumeList:
    """List the volumes that match all given filters, by pool and name."""
    return service.list_volumes(context, pool, limit)


@routes.post("/ceph/volume", operation="ceph-volume-add")
async def add_volume(
    context: Context,
    volume: params.TheVolume,
    pool: params.ThePool,
    size: params.Size = None,
    source_volume: params.Source = None,
) -> Message:
    """Add an empty volume, or a copy of another volume of the pool."""
    return await service.add_volume(context, pool, volume, size, source_volume)


@routes.get("/ceph/volume/snapshot")
async def list_snapshots(
    context: Context, pool: params.InPool = None, volume: params.OfVolume = None, limit: params.SnapshotLimit = None
) -> SnapshotList:
    """List the snapshots that match all given filters, by pool, volume and name."""
    return service.list_snapshots(context, pool, volume, limit)


@routes.post("/ceph/volume/snapshot", operation="ceph-snapshot-add")
async def add_snapshot(
    context: Context, snapshot: params.NewSnapshot, volume: params.TheVolume, pool: params.ThePool
) -> Message:
    """Take a snapshot of a volume."""
    return await service.add_snapshot(context, pool, volume, snapshot)


@routes.get("/ceph/volume/snapshot/{pool}/{volume}/{snapshot}")
async def get_snapshot(
    context: Context, pool: params.PoolName, volume: params.VolumeName, snapshot: params.SnapshotName
) -> SnapshotList:
    """Show one snapshot, as a list of one."""
    return service.get_snapshot(context, pool, volume, snapshot)


@routes.put("/ceph/volume/snapshot/{pool}/{volume}/{snapshot}", operation="ceph-snapshot-rename")
async def rename_snapshot(
    context: Context,
    pool: params.PoolName,
    volume: params.VolumeName,
    snapshot: params.SnapshotName,
    name: params.RenamedTo,
) -> Message:
    """Rename a snapshot."""
    return await service.rename_snapshot(context, pool, volume, snapshot, name)


@routes.delete("/ceph/volume/snapshot/{pool}/{volume}/{snapshot}", operation="ceph-snapshot-remove")
async def remove_snapshot(
    context: Context, pool: params.PoolName, volume: params.VolumeName, snapshot: params.SnapshotName
) -> Message:
    """Remove a snapshot."""
    return await service.remove_snapshot(context, pool, volume, snapshot)


@routes.post("/ceph/volume/snapshot/{pool}/{volume}/{snapshot}/rollback", operation="ceph-snapshot-rollback")
async def rollback(
    context: Context, pool: params.PoolName, volume: params.VolumeName, snapshot: params.SnapshotName
) -> Message:
    """Roll a volume that no client has open back to a snapshot; later changes are lost."""
    return await service.rollback(context, pool, volume, snapshot)


@routes.get("/ceph/volume/{pool}/{volume}")
async def get_volume(context: Context, pool: params.PoolName, volume: params.VolumeName) -> VolumeList:
    """Show one volume, as a list of one."""
    return service.get_volume(context, pool, volume)


@routes.put("/ceph/volume/{pool}/{volume}")
async def change_volume(
    context: Context,
    pool: params.PoolName,
    volume: params.VolumeName,
    name: params.NewName = None,
    size: params.Size = None,
    shrink: params.Shrink = False,
) -> Message:
    """Rename or resize a volume."""
    return await service.change_volume(context, pool, volume, name, size, shrink)


@routes.delete("/ceph/volume/{pool}/{volume}", operation="ceph-volume-remove")
async def remove_volume(context: Context, pool: params.PoolName, volume: params.VolumeName) -> Message:
    """Remove a volume that has no snapshots and that no client has open."""
    return await service.remove(context, pool, volume)
