"""The rules for templates: systems, networks, disks and userdata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pvcd import Conflict, Context, Invalid, NodeSelector, NotFound, Put, did_you_mean, retried
from pvcd_plugins.ceph.service import Pool, Volume
from pvcd_plugins.network.service import Network
from pvcd_plugins.node.service import Node
from pvcd_plugins.provisioner import userdata
from pvcd_plugins.provisioner.catalogue import counting, make, refuse_large, remove, replace
from pvcd_plugins.provisioner.grammar import UNMOUNTABLE
from pvcd_plugins.provisioner.records import (
    EMPTY,
    Disk,
    NetworkTemplate,
    StorageTemplate,
    SystemTemplate,
    UserdataTemplate,
)
from pvcd_plugins.provisioner.service import find_network, find_storage, find_system, find_userdata

MAX_NETS, MAX_DISKS, MAX_FILESYSTEM_ARGS = 16, 26, 16


# Systems


@retried
async def create_system(context: Context, draft: SystemTemplate) -> list[str]:
    """Make a system template; returns warnings."""
    known = [each.name for each in context.declared(NodeSelector)]
    if draft.node_selector is not None and draft.node_selector not in known:
        wrong = draft.node_selector
        raise Invalid(f"node_selector {wrong[:60]!r} is not valid: {did_you_mean(wrong[:60], known)}")
    taken = Conflict(f"There is a system template {draft.name!r} already.", code="system-template-exists")
    await make(context, draft, taken)
    return [f"node_limit: there is no node {n!r}." for n in draft.node_limit if context.store.get(Node, n) is None]


async def remove_system(context: Context, name: str) -> None:
    """Remove a system template that no profile uses."""
    await remove(context, find_system, name, "system_template")


# Networks


@retried
async def create_network(context: Context, draft: NetworkTemplate) -> list[str]:
    """Make a network template, without any nets; returns warnings."""
    taken = Conflict(f"There is a network template {draft.name!r} already.", code="network-template-exists")
    await make(context, draft, taken)
    template = draft.mac_template
    if template is not None and "{vmid}" not in template:
        return ["mac_template: without {vmid}, two VMs that are built from it would have the same MAC addresses."]
    return []


async def remove_network(context: Context, name: str) -> None:
    """Remove a network template that no profile uses, with its nets."""
    await remove(context, find_network, name, "network_template")


def find_net(template: NetworkTemplate, vni: int | str) -> int:
    """The net of a template that has this VNI."""
    found = next((each for each in template.networks if str(each) == str(vni)), None)
    if found is None:
        raise NotFound("net", f"{template.name}/{vni}")
    return found


@retried
async def add_net(context: Context, name: str, vni: int) -> list[str]:
    """Let the next interface be in a network; returns warnings."""
    template = find_network(context, name)
    if vni in template.networks:
        raise Conflict(f"The network template {name} has the net {vni} already.", code="net-exists")
    if len(template.networks) == MAX_NETS:
        raise Conflict(
            f"The network template {name} has {MAX_NETS} nets, which are all that a VM may have.", code="template-full"
        )
    await context.store.write(Put(template.changed(networks=(*template.networks, vni))))
    known = not context.store.knows(Network) or context.store.get(Network, vni) is not None
    return [] if known else [f"There is no network {vni} yet, without which no VM can be built."]


@retried
async def remove_net(context: Context, name: str, vni: int | str) -> int:
    """Take one interface away; returns its VNI."""
    template = find_network(context, name)
    gone = find_net(template, vni)
    await context.store.write(Put(template.changed(networks=tuple(each for each in template.networks if each != gone))))
    return gone


# Disks


@dataclass(frozen=True, kw_only=True)
class DiskOptions:
    """What was asked for of a disk; None is not given."""

    pool: str
    disk_size: int | None = None
    source_volume: str | None = None
    filesystem: str | None = None
    filesystem_args: list[str] | None = None
    mountpoint: str | None = None


@retried
async def create_storage(context: Context, name: str) -> None:
    """Make a storage template, without any disks."""
    taken = Conflict(f"There is a storage template {name!r} already.", code="storage-template-exists")
    await make(context, StorageTemplate(name=name), taken)


async def remove_storage(context: Context, name: str) -> None:
    """Remove a storage template that no profile uses, with its disks."""
    await remove(context, find_storage, name, "storage_template")


def find_disk(template: StorageTemplate, disk_id: str) -> Disk:
    """The disk of a template that is called so."""
    found = next((disk for disk in template.disks if disk.disk_id == disk_id), None)
    if found is None:
        raise NotFound("disk", f"{template.name}/{disk_id}")
    return found


@retried
async def add_disk(context: Context, name: str, disk_id: str, options: DiskOptions) -> list[str]:
    """Give a storage template one more disk; returns warnings."""
    _refuse_unsound(options)
    template = find_storage(context, name)
    _refuse_clash(template, disk_id, options)
    number, counted = counting(context)
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
    """Refuse values that do not belong together."""
    given = {
        "disk_size": options.disk_size,
        "filesystem": options.filesystem,
        "filesystem_arg": options.filesystem_args,
        "mountpoint": options.mountpoint,
    }
    needless = [name for name, value in given.items() if value]
    if options.source_volume is not None and needless:
        raise Invalid(
            f"A disk with a source_volume is a copy of it, and has no {' and no '.join(needless)} of its own."
        )
    if options.source_volume is None and options.disk_size is None:
        raise Invalid("The argument 'disk_size' is missing: a disk needs a size, or a source_volume.")
    for name in ("filesystem_arg", "mountpoint"):
        if given[name] and options.filesystem is None:
            raise Invalid(f"{name} needs a filesystem.")
    if options.mountpoint and options.filesystem in UNMOUNTABLE:
        raise Invalid(f"A filesystem of the type {options.filesystem} has no mountpoint.")
    if len(options.filesystem_args or ()) > MAX_FILESYSTEM_ARGS:
        raise Invalid(f"filesystem_arg is given more than {MAX_FILESYSTEM_ARGS} times.")


def _refuse_clash(template: StorageTemplate, disk_id: str, options: DiskOptions) -> None:
    """Refuse what another disk of the template has already; sda and vda are the same place of a VM."""
    if len(template.disks) == MAX_DISKS:
        raise Conflict(
            f"The storage template {template.name} has {MAX_DISKS} disks, which are all that a VM may have.",
            code="template-full",
        )
    for disk in template.disks:
        if disk.disk_id[1:] == disk_id[1:]:
            raise Conflict(
                f"The storage template {template.name} has a disk {disk.disk_id} already.", code="disk-exists"
            )
        if options.mountpoint and disk.mountpoint == options.mountpoint:
            raise Conflict(f"The disk {disk.disk_id} has the mountpoint {disk.mountpoint} already.", code="disk-exists")


def _unknown(context: Context, disk: Disk) -> Iterator[str]:
    """Warnings about what is not there yet, as far as it is known what is there."""
    if not context.store.knows(Pool):
        return
    if context.store.get(Pool, disk.pool) is None:
        yield f"There is no pool {disk.pool!r} yet, without which no VM can be built."
    elif disk.source_volume is not None and context.store.get(Volume, disk.pool, disk.source_volume) is None:
        yield f"There is no volume {disk.pool}/{disk.source_volume} yet, without which no VM can be built."


@retried
async def remove_disk(context: Context, name: str, disk_id: str) -> None:
    """Take one disk away."""
    template = find_storage(context, name)
    gone = find_disk(template, disk_id)
    await context.store.write(Put(template.changed(disks=tuple(disk for disk in template.disks if disk is not gone))))


# Userdata


async def check_userdata(context: Context, text: str) -> list[str]:
    """Warnings about a userdata template; `Invalid` if it cannot be rendered."""
    refuse_large(text)
    return await userdata.check(context[userdata.RENDERING], text)


@retried
async def create_userdata(context: Context, name: str, text: str) -> None:
    """Make a userdata template of a text that was checked."""
    _refuse_fixed(name)
    taken = Conflict(f"There is a userdata template {name!r} already.", code="userdata-template-exists")
    await make(context, UserdataTemplate(name=name, userdata=text), taken)


async def replace_userdata(context: Context, name: str, text: str) -> None:
    """Give a userdata template another text, which was checked."""
    _refuse_fixed(name)
    await replace(context, find_userdata, name, userdata=text)


async def remove_userdata(context: Context, name: str) -> None:
    """Remove a userdata template that no profile uses."""
    _refuse_fixed(name)
    await remove(context, find_userdata, name, "userdata_template")


def _refuse_fixed(name: str) -> None:
    if name == EMPTY.name:
        raise Conflict(
            f"The userdata template {name!r} is always there: it can be neither changed nor removed.",
            code="userdata-template-fixed",
        )
