"""The tables kept up to date with the store: what VMs take of each node, and which networks and volumes they use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

from pvcd import Component, ComponentKey, Index, Invalid, Role
from pvcd_plugins.network import service as networks
from pvcd_plugins.network.service import Lease
from pvcd_plugins.vm import domain
from pvcd_plugins.vm.domain import UsedVolume
from pvcd_plugins.vm.records import VM, GuestUse, VMReport
from pvcd_plugins.vm.states import WANTS_GUEST

K = TypeVar("K")
Attachment = tuple[str, str]
"""The bridge and the MAC address of an interface."""
VolumeKey = tuple[str, str]
"""Pool and volume."""
User = tuple[UUID, type[VM | VMReport]]
"""A VM by its definition, or by the report of its guest, which may have been started with another one."""


@dataclass
class Allocated:
    """The number of a node's VMs, and the MiB and vCPUs of those that run or should run."""

    vms: int = 0
    memory: int = 0
    vcpus: int = 0


class AllocationIndex(Index[VM | VMReport]):
    """The resources that VMs take of each node: by their records, ahead of the nodes' reports, and by their guests.

    A VM whose guest was started with another definition takes the larger of both.
    """

    follows = (VM, VMReport)

    def __init__(self) -> None:
        self._nodes: dict[str, Allocated] = defaultdict(Allocated)
        self._vms: dict[UUID, VM] = {}
        self._guests: dict[UUID, GuestUse] = {}

    def of(self, node: str) -> Allocated:
        """Return the resources that are taken of a node."""
        return self._nodes[node]

    def add(self, record: VM | VMReport) -> None:
        """Count a VM or its guest in."""
        self._count(record.uuid, -1)
        if isinstance(record, VM):
            self._vms[record.uuid] = record
        elif record.guest_use:
            self._guests[record.uuid] = record.guest_use
        self._count(record.uuid, +1)

    def remove(self, record: VM | VMReport) -> None:
        """Count a VM or its guest out."""
        self._count(record.uuid, -1)
        (self._vms if isinstance(record, VM) else self._guests).pop(record.uuid, None)
        self._count(record.uuid, +1)

    def _count(self, uuid: UUID, sign: int) -> None:
        vm, guest = self._vms.get(uuid), self._guests.get(uuid, GuestUse())
        if vm is not None:
            memory, vcpus = _size_of(vm.xml) if vm.state in WANTS_GUEST else (0, 0)
            node = self._nodes[vm.node]
            node.vms += sign
            node.memory += sign * max(memory, guest.memory)
            node.vcpus += sign * max(vcpus, guest.vcpus)


class NetworkIndex(Index[VM | VMReport | Lease]):
    """The VMs at each bridge, by their definitions and their guests, and the leases of their interfaces."""

    follows = (VM, VMReport, Lease)

    def __init__(self) -> None:
        self._bridges: dict[str, set[User]] = defaultdict(set)
        self._interfaces: dict[Attachment, set[User]] = defaultdict(set)
        self._leases: dict[Attachment, dict[str, Lease]] = defaultdict(dict)

    def at(self, bridge: str) -> set[UUID]:
        """Return the VMs with an interface at a bridge."""
        return {uuid for uuid, _ in self._bridges.get(bridge, ())}

    def of(self, lease: Lease) -> set[UUID]:
        """Return the VMs whose interface has a lease."""
        return self.with_interface(*_attachment(lease))

    def with_interface(self, bridge: str, mac: str) -> set[UUID]:
        """Return the VMs that have an interface with this address at a bridge."""
        return {uuid for uuid, _ in self._interfaces.get((bridge, mac.lower()), ())}

    def leases(self, bridge: str | None, mac: str | None) -> list[Lease]:
        """Return the leases of an interface, sorted by address."""
        found = self._leases.get((bridge or "", (mac or "").lower()), {})
        return [found[path] for path in sorted(found)]

    def add(self, record: VM | VMReport | Lease) -> None:
        """Enter the interfaces of a VM or its guest, or a lease."""
        if isinstance(record, Lease):
            self._leases[_attachment(record)][record.path] = record
            return
        for bridge, mac in _use_of(record).interfaces:
            self._bridges[bridge].add((record.uuid, type(record)))
            self._interfaces[bridge, mac].add((record.uuid, type(record)))

    def remove(self, record: VM | VMReport | Lease) -> None:
        """Drop the interfaces of a VM or its guest, or a lease."""
        if isinstance(record, Lease):
            leases = self._leases[_attachment(record)]
            leases.pop(record.path, None)
            if not leases:  # guests make up addresses without end
                del self._leases[_attachment(record)]
            return
        user = record.uuid, type(record)
        for bridge, mac in dict.fromkeys(_use_of(record).interfaces):
            _discard(self._interfaces, (bridge, mac), user)
        for bridge in {bridge for bridge, _ in _use_of(record).interfaces}:
            _discard(self._bridges, bridge, user)


class VolumeIndex(Index[VM | VMReport]):
    """The VMs that name each volume or run with it, and whether they write to it."""

    follows = (VM, VMReport)

    def __init__(self) -> None:
        self._users: dict[VolumeKey, dict[User, bool]] = defaultdict(dict)

    def of(self, pool: str, volume: str) -> Mapping[UUID, bool]:
        """Return the users of a volume: UUID -> whether the VM writes to it."""
        writes: dict[UUID, bool] = {}
        for (uuid, _), each in self._users.get((pool, volume), {}).items():
            writes[uuid] = each or writes.get(uuid, False)
        return writes

    def in_pool(self, pool: str) -> list[VolumeKey]:
        """Return the volumes of a pool that VMs use."""
        return sorted(key for key in self._users if key[0] == pool)

    def add(self, record: VM | VMReport) -> None:
        """Enter a VM or its guest as a user of its volumes."""
        for used in _use_of(record).volumes:
            self._users[used.pool, used.volume][record.uuid, type(record)] = used.writes

    def remove(self, record: VM | VMReport) -> None:
        """Drop a VM or its guest from the users of its volumes."""
        for used in _use_of(record).volumes:
            users = self._users[used.pool, used.volume]
            users.pop((record.uuid, type(record)), None)
            if not users:
                del self._users[used.pool, used.volume]


def _discard(users: dict[K, set[User]], key: K, user: User) -> None:
    users[key].discard(user)
    if not users[key]:
        del users[key]


def use_of(xml: str) -> GuestUse:
    """Return what the guest of a definition uses."""
    memory, vcpus = _size_of(xml)
    return GuestUse(interfaces=attachments_of(xml), volumes=volumes_of(xml), memory=memory, vcpus=vcpus)


def _use_of(record: VM | VMReport) -> GuestUse:
    return use_of(record.xml) if isinstance(record, VM) else record.guest_use or GuestUse()


def _attachment(lease: Lease) -> Attachment:
    return networks.bridge_name(lease.vni), (lease.mac or "").lower()


# A definition that cannot be read was written under other rules. It cannot be started, so it takes and uses nothing.
@lru_cache(maxsize=20_000)
def _size_of(xml: str) -> tuple[int, int]:
    try:
        found = domain.parse(xml)
    except Invalid:
        return 0, 0
    return found.memory, found.vcpu


@lru_cache(maxsize=20_000)
def attachments_of(xml: str) -> tuple[Attachment, ...]:
    """Return the interfaces of a definition that are at bridges; none if the definition cannot be read."""
    try:
        found = domain.parse(xml).networks
    except Invalid:
        return ()
    return tuple((each.source, (each.mac or "").lower()) for each in found if each.type == "bridge" and each.source)


@lru_cache(maxsize=20_000)
def volumes_of(xml: str) -> tuple[UsedVolume, ...]:
    """Return the volumes of a definition; none if the definition cannot be read."""
    try:
        return domain.volumes(xml)
    except Invalid:
        return ()


ALLOCATION_INDEX: ComponentKey[AllocationIndex] = ComponentKey("vm-allocation")
NETWORK_INDEX: ComponentKey[NetworkIndex] = ComponentKey("vm-networks")
VOLUME_INDEX: ComponentKey[VolumeIndex] = ComponentKey("vm-volumes")
COMPONENTS: list[Component[Any]] = [
    Component(ALLOCATION_INDEX, AllocationIndex.open, roles=(Role.API, Role.NODE, Role.WORKER), in_memory=True),
    Component(NETWORK_INDEX, NetworkIndex.open, roles=(Role.API, Role.PRIMARY, Role.WORKER), in_memory=True),
    Component(VOLUME_INDEX, VolumeIndex.open, roles=(Role.API, Role.NODE, Role.WORKER), in_memory=True),
]
