"""The rules for templates: systems, networks, disks and userdata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pvcd import Conflict, Context, Invalid, NodeSelector, NotFound, Put, retried, wrong_value
from pvcd_plugins.ceph.service import Pool, Volume
from pvcd_plugins.network.service import Network
from pvcd_plugins.node.service import Node
from pvcd_plugins.provisioner.filesystems import refuse_argument
from pvcd_plugins.provisioner.grammar import UNMOUNTABLE
from pvcd_plugins.provisioner.programs import userdata
from pvcd_plugins.provisioner.records import (
    EMPTY,
    Disk,
    NetworkTemplate,
    StorageTemplate,
    SystemTemplate,
    UserdataTemplate,
)
from pvcd_plugins.provisioner.service.catalogue import create, find, next_id, refuse_large, remove, replace

MAX_NETS, MAX_DISKS, MAX_FILESYSTEM_ARGS = 16, 26, 16


# Systems


async def create_system(context: Context, draft: SystemTemplate) -> list[str]:
    """Create a system template, and return warnings."""
    known = sorted(each.name for each in context.declared(NodeSelector))
    if draft.node_selector is not None and draft.node_selector not in known:
        rule = f"must be one of {', '.join(known) or '(none)'}"
        raise Invalid(wrong_value("node_selector", repr(draft.node_selector[:60]), rule))
    await create(context, draft)
    return [f"node_limit: there is no node {n!r}." for n in draft.node_limit if context.store.get(Node, n) is None]


# Networks


async def create_network(context: Context, draft: NetworkTemplate) -> list[str]:
    """Create a network template without nets, and return warnings."""
    await create(context, draft)
    template = draft.mac_template
    if template is not None and "{vmid}" not in template:
        return ["mac_template: without {vmid}, all VMs built from this template get the same MAC addresses."]
    return []


def find_net(template: NetworkTemplate, vni: int | str) -> int:
    """Return the net of a template that has this VNI."""
    found = next((each for each in template.networks if str(each) == str(vni)), None)
    if found is None:
        raise NotFound("net", f"{template.name}/{vni}")
    return found


@retried
async def add_net(context: Context, name: str, vni: int) -> list[str]:
    """Add a network as the next interface, and return warnings."""
    template = find(context, NetworkTemplate, name)
    if vni in template.networks:
        raise Conflict(
            f"Cannot add net {vni} to network template {name!r}: it has this net already.", code="net-exists"
        )
    if len(template.networks) == MAX_NETS:
        raise Conflict(
            f"Cannot add net {vni} to network template {name!r}: a VM has at most {MAX_NETS} interfaces.",
            code="template-full",
        )
    await context.store.write(Put(template.changed(networks=(*template.networks, vni))))
    known = not context.store.knows(Network) or context.store.get(Network, vni) is not None
    return [] if known else [f"There is no network {vni} yet. It must exist when a VM is built."]


@retried
async def remove_net(context: Context, name: str, vni: int | str) -> int:
    """Remove an interface, and return its VNI."""
    template = find(context, NetworkTemplate, name)
    removed = find_net(template, vni)
    rest = tuple(each for each in template.networks if each != removed)
    await context.store.write(Put(template.changed(networks=rest)))
    return removed


# Disks


@dataclass(frozen=True, kw_only=True)
class DiskOptions:
    """The values of a new disk; None for those not given."""

    pool: str
    disk_size: int | None = None
    source_volume: str | None = None
    filesystem: str | None = None
    filesystem_args: list[str] | None = None
    mountpoint: str | None = None


def find_disk(template: StorageTemplate, disk_id: str) -> Disk:
    """Return the disk of a template that has this id."""
    found = next((disk for disk in template.disks if disk.disk_id == disk_id), None)
    if found is None:
        raise NotFound("disk", f"{template.name}/{disk_id}")
    return found


@retried
async def add_disk(context: Context, name: str, disk_id: str, options: DiskOptions) -> list[str]:
    """Add a disk to a storage template, and return warnings."""
    _refuse_unsound(options)
    template = find(context, StorageTemplate, name)
    _refuse_clash(template, disk_id, options)
    number, counted = next_id(context)
    disk = Disk(
        id=number,
        disk_id=disk_id,
        pool=options.pool,
        disk_size_gb=options.disk_size,
        source_volume=options.source_volume,
        filesystem=options.filesystem,
        filesystem_args=tuple(options.filesystem_args or ()),
        mountpoint=options.mountpoint,
    )
    disks = sorted((*template.disks, disk), key=lambda each: (len(each.disk_id), each.disk_id))
    await context.store.write(Put(template.changed(disks=tuple(disks))), counted)
    return list(_unknown(context, disk))


def _refuse_unsound(options: DiskOptions) -> None:
    """Raise `Invalid` for values that cannot be combined."""
    given = {
        "disk_size": options.disk_size,
        "filesystem": options.filesystem,
        "filesystem_arg": options.filesystem_args,
        "mountpoint": options.mountpoint,
    }
    needless = [name for name, value in given.items() if value]
    if options.source_volume is not None and needless:
        raise Invalid(
            f"source_volume cannot be used with {', '.join(needless)}: a copy has the size and content of its source."
        )
    if options.source_volume is None and options.disk_size is None:
        raise Invalid("The argument 'disk_size' is missing: a disk requires disk_size or source_volume.")
    for name in ("filesystem_arg", "mountpoint"):
        if given[name] and options.filesystem is None:
            raise Invalid(f"{name} requires filesystem.")
    if options.mountpoint and options.filesystem in UNMOUNTABLE:
        raise Invalid(f"mountpoint cannot be used with filesystem={options.filesystem}: it cannot be mounted.")
    count = len(options.filesystem_args or ())
    if count > MAX_FILESYSTEM_ARGS:
        raise Invalid(f"filesystem_arg must be given at most {MAX_FILESYSTEM_ARGS} times; got {count}.")
    for argument in options.filesystem_args or ():
        refuse_argument(options.filesystem or "", argument)


def _refuse_clash(template: StorageTemplate, disk_id: str, options: DiskOptions) -> None:
    """Raise `Conflict` for an id or a mountpoint that another disk has. sda and vda are the same place in a VM."""
    what = f"disk {disk_id!r} to storage template {template.name!r}"
    if len(template.disks) == MAX_DISKS:
        raise Conflict(f"Cannot add {what}: a VM has at most {MAX_DISKS} disks.", code="template-full")
    for disk in template.disks:
        if disk.disk_id[1:] == disk_id[1:]:
            raise Conflict(f"Cannot add {what}: it has disk {disk.disk_id!r} already.", code="disk-exists")
        if options.mountpoint and disk.mountpoint == options.mountpoint:
            mountpoint = f"disk {disk.disk_id!r} has the mountpoint {disk.mountpoint!r} already"
            raise Conflict(f"Cannot add {what}: {mountpoint}.", code="disk-exists")


def _unknown(context: Context, disk: Disk) -> Iterator[str]:
    """Yield a warning for a missing pool or source volume, if the cluster's storage is known here."""
    if not context.store.knows(Pool):
        return
    if context.store.get(Pool, disk.pool) is None:
        yield f"There is no pool {disk.pool!r} yet. It must exist when a VM is built."
    elif disk.source_volume is not None and context.store.get(Volume, disk.pool, disk.source_volume) is None:
        yield f"There is no volume '{disk.pool}/{disk.source_volume}' yet. It must exist when a VM is built."


@retried
async def remove_disk(context: Context, name: str, disk_id: str) -> None:
    """Remove a disk from a storage template."""
    template = find(context, StorageTemplate, name)
    removed = find_disk(template, disk_id)
    rest = tuple(disk for disk in template.disks if disk is not removed)
    await context.store.write(Put(template.changed(disks=rest)))


# Userdata


async def create_userdata(context: Context, name: str, text: str) -> list[str]:
    """Create a userdata template, and return warnings. Raises `Invalid` for a text that cannot be rendered."""
    warnings = await _check_userdata(context, text)
    _refuse_fixed("create", name)
    await create(context, UserdataTemplate(name=name, userdata=text))
    return warnings


async def replace_userdata(context: Context, name: str, text: str) -> list[str]:
    """Replace the text of a userdata template, and return warnings. Raises `Invalid` like `create_userdata`."""
    warnings = await _check_userdata(context, text)
    _refuse_fixed("replace", name)
    await replace(context, UserdataTemplate, name, userdata=text)
    return warnings


async def remove_userdata(context: Context, name: str) -> None:
    """Remove a userdata template that no profile uses."""
    _refuse_fixed("remove", name)
    await remove(context, UserdataTemplate, name)


async def _check_userdata(context: Context, text: str) -> list[str]:
    refuse_large(text)
    return await userdata.check(context[userdata.RENDERING], text)


def _refuse_fixed(verb: str, name: str) -> None:
    if name == EMPTY.name:
        raise Conflict(
            f"Cannot {verb} userdata template {name!r}: it always exists and is always empty.",
            code="userdata-template-fixed",
        )
