"""Which VMs use which networks, and the addresses that their interfaces have there."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from functools import lru_cache
from uuid import UUID

from pvcd import Check, Component, ComponentKey, Context, Invalid, Listener, Operation, Record, Role
from pvcd_plugins.network import service as networks
from pvcd_plugins.network.service import Lease
from pvcd_plugins.vm import domain
from pvcd_plugins.vm.records import VM

Attachment = tuple[str, str]
"""The bridge and the MAC address of an interface."""


class NetworkIndex:
    """The VMs at each bridge and the leases of their interfaces, kept up to date with every change."""

    def __init__(self) -> None:
        self._bridges: dict[str, set[UUID]] = defaultdict(set)
        self._interfaces: dict[Attachment, set[UUID]] = defaultdict(set)
        self._leases: dict[Attachment, dict[str, Lease]] = defaultdict(dict)

    def at(self, bridge: str) -> set[UUID]:
        """The VMs with an interface at a bridge."""
        return self._bridges.get(bridge, set())

    def of(self, lease: Lease) -> set[UUID]:
        """The VMs whose lease it is."""
        return self.with_interface(*_key(lease))

    def with_interface(self, bridge: str, mac: str) -> set[UUID]:
        """The VMs that have an interface with this address at a bridge."""
        return self._interfaces.get((bridge, mac.lower()), set())

    def leases(self, bridge: str | None, mac: str | None) -> list[Lease]:
        """Those of an interface, by address."""
        found = self._leases.get((bridge or "", (mac or "").lower()), {})
        return [found[path] for path in sorted(found)]

    def changed(self, path: str, old: Record | None, new: Record | None) -> None:
        """Follow a change of the store."""
        if isinstance(old, VM):
            for bridge, mac in attachments_of(old.xml):
                self._bridges[bridge].discard(old.uuid)
                self._interfaces[bridge, mac].discard(old.uuid)
        if isinstance(new, VM):
            for bridge, mac in attachments_of(new.xml):
                self._bridges[bridge].add(new.uuid)
                self._interfaces[bridge, mac].add(new.uuid)
        if isinstance(old, Lease):
            self._leases[_key(old)].pop(path, None)
        if isinstance(new, Lease):
            self._leases[_key(new)][path] = new


def _key(lease: Lease) -> Attachment:
    return networks.bridge_name(lease.vni), (lease.mac or "").lower()


@lru_cache(maxsize=20_000)
def attachments_of(xml: str) -> tuple[Attachment, ...]:
    """The interfaces of a definition that are at bridges; none of one that other rules than ours let in."""
    try:
        found = domain.parse(xml).networks
    except Invalid:
        return ()
    return tuple((each.source, (each.mac or "").lower()) for each in found if each.type == "bridge" and each.source)


def usable(context: Context, xml: str) -> list[Check]:
    """What is written along with a definition, so that it fails if one of its networks goes; `Invalid` without it."""
    return networks.usable(context, {bridge for bridge, _ in attachments_of(xml)})


async def users(context: Context, operation: Operation) -> list[str]:
    """The VMs that keep a network from being removed."""
    found = (context.store.get(VM, uuid) for uuid in context[NETWORK_INDEX].at(str(operation.arguments["bridge"])))
    return sorted(f"VM {vm.name}" for vm in found if vm is not None)


@contextlib.asynccontextmanager
async def open_network_index(context: Context) -> AsyncIterator[NetworkIndex]:
    """Read from what is there, and following the store as long as it is open."""
    attachments = NetworkIndex()
    for record in (*context.store.all(VM), *context.store.all(Lease)):
        attachments.changed(record.path, None, record)
    end = context.store.subscribe(attachments.changed)
    try:
        yield attachments
    finally:
        end()


NETWORK_INDEX: ComponentKey[NetworkIndex] = ComponentKey("vm-networks")
COMPONENT = Component(NETWORK_INDEX, open_network_index, roles=(Role.API, Role.PRIMARY))
LISTENERS = [Listener("vm-networks", (networks.RETIRE,), users)]
