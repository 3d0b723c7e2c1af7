"""The blueprint of a VM: everything about a VM to be built, put together and checked before any step acts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pvcd import Context, Invalid, NotFound
from pvcd_plugins.ceph import service as storage
from pvcd_plugins.network.service import bridge_name, by_bridge
from pvcd_plugins.node import service as nodes
from pvcd_plugins.provisioner import macs
from pvcd_plugins.provisioner.domain import Interface, Machine, Volume, build
from pvcd_plugins.provisioner.programs.userdata import RENDERING
from pvcd_plugins.provisioner.records import (
    Disk,
    NetworkTemplate,
    Profile,
    Script,
    StorageTemplate,
    SystemTemplate,
    UserdataTemplate,
)
from pvcd_plugins.provisioner.service.catalogue import find
from pvcd_plugins.provisioner.variables import Level, Variables, arguments_of, values_of, vm_id_of
from pvcd_plugins.provisioner.volumes import VolumeTaken, volume_name
from pvcd_plugins.vm import service as vms

KIND = "provision"
"""Of the tasks that build VMs."""
GIB = 1024**3
EMULATOR = "/usr/bin/qemu-system-x86_64"


@dataclass(frozen=True)
class Request:
    """A request for a VM, as the task keeps it. The UUID of the VM is chosen when the request arrives."""

    name: str
    profile: str
    uuid: UUID
    arguments: tuple[str, ...] = ()
    define: bool = True
    start: bool = True
    secrets: tuple[str, ...] = ()
    """Arguments whose values are secrets."""


@dataclass(frozen=True)
class Blueprint:
    """A VM as its profile and the request define it."""

    request: Request
    profile: Profile
    system: SystemTemplate
    networks: NetworkTemplate
    disks: tuple[Disk, ...]
    userdata: UserdataTemplate
    script: Script
    macs: tuple[str, ...]
    variables: Variables
    xml: str

    @property
    def vm_id(self) -> int:
        """The last number in its name."""
        return vm_id_of(self.request.name)

    def volume(self, disk: Disk) -> str:
        """Return the name of a disk's volume."""
        return volume_name(self.request.name, disk.disk_id)


def draw(context: Context, request: Request) -> Blueprint:
    """Put together what the profile names. Raises `NotFound`, `Invalid`, and `Conflict` for a MAC address in use."""
    profile = find(context, Profile, request.profile)
    system = find(context, SystemTemplate, profile.system_template)
    networks = find(context, NetworkTemplate, profile.network_template)
    disks = find(context, StorageTemplate, profile.storage_template).disks
    known = vms.macs(context)
    found = macs.addresses(networks.mac_template, request.name, vm_id_of(request.name), networks.networks, known)
    return Blueprint(
        request=request,
        profile=profile,
        system=system,
        networks=networks,
        disks=disks,
        userdata=find(context, UserdataTemplate, profile.userdata_template),
        script=find(context, Script, profile.script),
        macs=tuple(found),
        variables=_variables(request, profile, system, networks, disks, found),
        xml=build(_machine(context, request, system, networks, disks, found)),
    )


def _variables(
    request: Request,
    profile: Profile,
    system: SystemTemplate,
    networks: NetworkTemplate,
    disks: tuple[Disk, ...],
    found: list[str],
) -> Variables:
    name = request.name
    given = {"vm_name": name, "vm_id": vm_id_of(name), "vm_uuid": str(request.uuid), "profile": profile.name}
    interfaces = [{"vni": vni, "mac": mac} for vni, mac in zip(networks.networks, found, strict=True)]
    return Variables(
        [
            *values_of(Level.DEFAULT, "the VM", given),
            *values_of(
                Level.TEMPLATE, f"system template {system.name!r}", {"vcpus": system.vcpus, "vram": system.vram}
            ),
            *values_of(Level.TEMPLATE, f"network template {networks.name!r}", {"networks": interfaces}),
            *values_of(
                Level.TEMPLATE, f"storage template {profile.storage_template!r}", {"disks": list(map(_shown, disks))}
            ),
            *arguments_of(Level.PROFILE, f"profile {profile.name!r}", profile.arguments),
            *arguments_of(Level.REQUEST, "request", request.arguments),
            *arguments_of(Level.REQUEST, "request", request.secrets, secret=True),
        ]
    )


def _shown(disk: Disk) -> dict[str, Any]:
    """Return a disk as userdata sees it."""
    names = ("pool", "disk_id", "disk_size_gb", "mountpoint", "filesystem")
    return {name: getattr(disk, name) for name in names} | {"filesystem_args": " ".join(disk.filesystem_args)}


def _machine(
    context: Context,
    request: Request,
    system: SystemTemplate,
    networks: NetworkTemplate,
    disks: tuple[Disk, ...],
    found: list[str],
) -> Machine:
    hypervisors = [nodes.fact(context, node.name, "hypervisor") for node in context.store.all(nodes.Node)]
    kinds = {kind for each in hypervisors for kind in each.get("domain_types", ())}
    emulators = {path for each in hypervisors for path in each.get("emulators", ())}
    return Machine(
        name=request.name,
        uuid=request.uuid,
        description=f"Built from the profile {request.profile}",
        vcpus=system.vcpus,
        memory=system.vram,
        interfaces=tuple(Interface(vni, mac) for vni, mac in zip(networks.networks, found, strict=True)),
        disks=tuple(Volume(disk.disk_id, disk.pool, volume_name(request.name, disk.disk_id)) for disk in disks),
        domain_type="kvm" if "kvm" in kinds else "qemu",
        emulator=EMULATOR if EMULATOR in emulators or not emulators else min(emulators),
        arch="x86_64",
        serial=system.serial_console,
        vnc=system.vnc,
        vnc_bind=system.vnc_bind,
    )


def verify(context: Context, blueprint: Blueprint) -> str:
    """Check that the cluster has what the VM needs, and return the node on which it would be placed."""
    request, system = blueprint.request, blueprint.system
    vms.refuse_uuid(request.name, "name")
    vms.refuse_taken(context, request.name)
    for vni in blueprint.networks.networks:
        if by_bridge(context, bridge_name(vni)) is None:
            raise Invalid(
                f"Cannot build VM {request.name!r}: network {vni} of network template {blueprint.networks.name!r} "
                "does not exist."
            )
    _refuse_volumes(context, blueprint)
    return vms.place(context, blueprint.xml, system.node_limit, system.node_selector)


async def render_userdata(context: Context, blueprint: Blueprint) -> str:
    """Return the userdata of the VM. Raises `Invalid`, without its secrets."""
    variables, text = blueprint.variables, blueprint.userdata.userdata
    return await context[RENDERING].render(text, variables.values(), redacted=variables.redacted)


def _refuse_volumes(context: Context, blueprint: Blueprint) -> None:
    """Refuse volumes that exist already, and those that exceed the free space of a pool."""
    wanted: dict[str, int] = defaultdict(int)
    for disk in blueprint.disks:
        size = (disk.disk_size_gb or 0) * GIB
        if disk.source_volume:
            size = storage.find_volume(context, disk.pool, disk.source_volume).size
        wanted[disk.pool] += size
        _refuse_existing(context, disk.pool, blueprint.volume(disk))
    for pool, size in wanted.items():
        free = storage.find_pool(context, pool).facts.free_bytes
        if size > free:
            raise storage.NoSpace(pool, size, free)


def _refuse_existing(context: Context, pool: str, volume: str) -> None:
    try:
        storage.find_volume(context, pool, volume)
    except NotFound as error:
        if error.code == "volume-not-found":
            return
        raise
    raise VolumeTaken(pool, volume)
