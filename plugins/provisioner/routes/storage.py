"""Storage templates and their disks."""

from __future__ import annotations

from pvcd import Context, Routes
from pvcd_plugins.provisioner import params, service
from pvcd_plugins.provisioner.records import StorageTemplate
from pvcd_plugins.provisioner.views import (
    VIEWS,
    DiskView,
    Named,
    NamedDisk,
    StorageTemplateList,
    disk_view,
    listed,
)

routes = Routes("/api/v1/provisioner/template/storage", tag="Provisioner")


@routes.get()
async def list_storage(context: Context, limit: params.Limit = None, name: params.OfName = None) -> StorageTemplateList:
    """List the storage templates that match every filter, sorted by name."""
    return listed(context[VIEWS].storage, limit, name)


@routes.post(also="/{name}", operation="provisioner-storage-template-create")
async def create_storage(context: Context, name: params.NewName) -> Named:
    """Create a storage template: the disks of a VM. It has none at first."""
    await service.create(context, StorageTemplate(name=name))
    return Named(name=name)


@routes.get("/{name}")
@routes.get("/{name}/disk")
async def get_storage(context: Context, name: params.NameInPath) -> StorageTemplateList:
    """Get a storage template with its disks, as a list of one."""
    return context[VIEWS].storage.one(service.find(context, StorageTemplate, name))


@routes.delete("/{name}", operation="provisioner-storage-template-remove")
async def remove_storage(context: Context, name: params.NameInPath) -> Named:
    """Remove a storage template that no profile uses, with its disks."""
    await service.remove(context, StorageTemplate, name)
    return Named(name=name)


@routes.post("/{name}/disk", also="/{name}/disk/{disk_id}", operation="provisioner-storage-template-disk-add")
async def add_disk(
    context: Context,
    name: params.NameInPath,
    disk_id: params.DiskId,
    pool: params.Pool,
    disk_size: params.DiskSize = None,
    source_volume: params.SourceVolume = None,
    filesystem: params.Filesystem = None,
    filesystem_args: params.FilesystemArgs = None,
    mountpoint: params.Mountpoint = None,
) -> NamedDisk:
    """Add a disk to a storage template: empty, or a copy of a `source_volume`."""
    options = service.DiskOptions(
        pool=pool,
        disk_size=disk_size,
        source_volume=source_volume,
        filesystem=filesystem,
        filesystem_args=filesystem_args,
        mountpoint=mountpoint,
    )
    warnings = await service.add_disk(context, name, disk_id, options)
    return NamedDisk(name=name, disk_id=disk_id, warnings=warnings)


@routes.delete("/{name}/disk", operation="provisioner-storage-template-disk-remove")
async def remove_disk(context: Context, name: params.NameInPath, disk_id: params.DiskId) -> NamedDisk:
    """Remove a disk from a storage template."""
    await service.remove_disk(context, name, disk_id)
    return NamedDisk(name=name, disk_id=disk_id)


@routes.get("/{name}/disk/{disk_id}")
async def get_disk(context: Context, name: params.NameInPath, disk_id: params.DiskIdInPath) -> DiskView:
    """Get a disk of a storage template."""
    template = service.find(context, StorageTemplate, name)
    return disk_view(template, service.find_disk(template, disk_id))


@routes.delete("/{name}/disk/{disk_id}", operation="provisioner-storage-template-disk-remove")
async def remove_named_disk(context: Context, name: params.NameInPath, disk_id: params.DiskIdInPath) -> NamedDisk:
    """Remove a disk from a storage template, with its id in the path."""
    return await remove_disk(context, name, disk_id)
