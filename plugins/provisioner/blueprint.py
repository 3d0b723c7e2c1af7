"""What a VM that is to be built will be: all of it is known, and judged, before anything is done."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pvcd import Conflict, Context, Invalid, NotFound
from pvcd_plugins.ceph import service as storage
from pvcd_plugins.network.service import bridge_name, by_bridge
from pvcd_plugins.node import service as nodes
from pvcd_plugins.provisioner import macs, service
from pvcd_plugins.provisioner.domain import Interface, Machine, Volume, build
from pvcd_plugins.provisioner.records import Disk, NetworkTemplate, Profile, Script, SystemTemplate, UserdataTemplate
from pvcd_plugins.provisioner.variables import Level, Variables, arguments_of, values_of, vm_id_of
from pvcd_plugins.provisioner.volumes import volume_name
from pvcd_plugins.vm import service as vms

GIB = 1024**3
EMULATOR = "/usr/bin/qemu-system-x86_64"


@dataclass(frozen=True)
class Request:
    """What was asked for, as it stands in the task; the UUID is settled when it is asked."""

    name: str
    profile: str
    uuid: UUID
    arguments: tuple[str, ...] = ()
    define: bool = True
    start: bool = True


@dataclass(frozen=True)
class Blueprint:
    """A VM as its profile and the request make it."""

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
        """The last number of its name."""
        return vm_id_of(self.request.name)

    def volume(self, disk: Disk) -> str:
        """The name of a disk's volume."""
        return volume_name(self.request.name, disk.disk_id)


def draw(context: Context, request: Request) -> Blueprint:
    """Put together what the profile names. Raises `NotFound`, `Invalid`, and `Conflict` for MAC addresses."""
    profile = service.find_profile(context, request.profile)
    system = service.find_system(context, profile.system_template)
    networks = service.find_network(context, profile.network_template)
    disks = service.find_storage(context, profile.storage_template).disks
    known = vms.macs(context)
    found = macs.addresses(networks.mac_template, request.name, vm_id_of(request.name), networks.networks, known)
    return Blueprint(
        request=request,
        profile=profile,
        system=system,
        networks=networks,
        disks=disks,
        userdata=service.find_userdata(context, profile.userdata_template),
        script=service.find_script(context, profile.script),
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
            *values_of(Level.TEMPLATE, f"system template {system.name}", {"vcpus": system.vcpus, "vram": system.vram}),
            *values_of(Level.TEMPLATE, f"network template {networks.name}", {"networks": interfaces}),
            *values_of(
                Level.TEMPLATE, f"storage template {profile.storage_template}", {"disks": list(map(told, disks))}
            ),
            *arguments_of(Level.PROFILE, f"profile {profile.name}", profile.arguments),
            *arguments_of(Level.REQUEST, "request", request.arguments),
        ]
    )


def told(disk: Disk) -> dict[str, Any]:
    """A disk as scripts and userdata are told of it."""
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
    """See whether the cluster has what the VM needs; the node that it would be put on. Raises what is missing."""
    request, system = blueprint.request, blueprint.system
    vms.refuse_taken(context, request.name)
    for vni in blueprint.networks.networks:
        if by_bridge(context, bridge_name(vni)) is None:
            raise Invalid(f"There is no network {vni}, which the network template {blueprint.networks.name} names.")
    _need_room(context, blueprint)
    return vms.place(context, blueprint.xml, system.node_limit, system.node_selector)


def _need_room(context: Context, blueprint: Blueprint) -> None:
    """Refuse volumes that are there already, or for which a pool has no space."""
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
    raise Conflict(f"There is a volume {pool}/{volume} already.", code="volume-exists")
