"""What a node opens for its VMs: the hypervisor, whose events wake the VMs' handlers, and the memory of starts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from pvcd import Component, ComponentKey, Context, NodeFact, Role
from pvcd_plugins.vm.backoff import StartBackoff
from pvcd_plugins.vm.hypervisor import GuestState, Hypervisor
from pvcd_plugins.vm.hypervisor.libvirt import LibvirtHypervisor
from pvcd_plugins.vm.records import VM
from pvcd_plugins.vm.settings import VMSettings

HYPERVISOR: ComponentKey[Hypervisor] = ComponentKey("hypervisor")
START_BACKOFF: ComponentKey[StartBackoff] = ComponentKey("start-backoff")


def wake_vms(context: Context, uuid: UUID | None) -> None:
    """Give the VM of a guest a generation, or all VMs."""
    for vm in context.store.all(VM) if uuid is None else [context.store.get(VM, uuid)]:
        if vm is not None:
            context.wake(vm)


@contextlib.asynccontextmanager
async def open_hypervisor(context: Context) -> AsyncIterator[Hypervisor]:
    """This node's libvirt; the agent starts also while it is not there yet."""
    settings = context.settings.of(VMSettings)
    await asyncio.to_thread(settings.console_directory.mkdir, parents=True, exist_ok=True)
    hypervisor: Hypervisor = LibvirtHypervisor(settings.uri)
    hypervisor.listen(lambda uuid: wake_vms(context, uuid))
    await hypervisor.open()
    try:
        yield hypervisor
    finally:
        await hypervisor.close()


@contextlib.asynccontextmanager
async def fake_hypervisor(context: Context) -> AsyncIterator[Hypervisor]:
    """That of a simulated cluster."""
    from pvcd_plugins.vm.hypervisor.fake import FakeHypervisor

    hypervisor = FakeHypervisor(context.clock)
    hypervisor.listen(lambda uuid: wake_vms(context, uuid))
    await hypervisor.open()
    try:
        yield hypervisor
    finally:
        await hypervisor.close()


@contextlib.asynccontextmanager
async def open_start_backoff(context: Context) -> AsyncIterator[StartBackoff]:
    """An empty memory of starts."""
    yield StartBackoff()


COMPONENTS: list[Component[Any]] = [
    Component(HYPERVISOR, open_hypervisor, roles=(Role.NODE,), fake=fake_hypervisor),
    Component(START_BACKOFF, open_start_backoff, roles=(Role.NODE,)),
]


async def domains(context: Context) -> dict[str, Any]:
    """UUIDs of the running guests, and the MiB and processors that they have together."""
    guests = [guest for guest in (await context[HYPERVISOR].domains()).values() if guest.state is not GuestState.OFF]
    return {
        "running": sorted(str(guest.uuid) for guest in guests),
        "memory": sum(guest.memory for guest in guests),
        "vcpus": sum(guest.vcpus for guest in guests),
    }


async def capabilities(context: Context) -> dict[str, Any]:
    """Domain types (of those that the settings allow), emulators, architecture and machines."""
    offered = await context[HYPERVISOR].capabilities()
    allowed = context.settings.of(VMSettings).domain_types
    return {
        "domain_types": [kind for kind in allowed if kind in offered.domain_types],
        "emulators": list(offered.emulators),
        "arch": offered.arch,
        "machines": list(offered.machines),
    }


FACTS = [NodeFact("domains", domains), NodeFact("hypervisor", capabilities)]
