"""The facts of a node that come from its hypervisor."""

from __future__ import annotations

from typing import Any

from pvcd import Context, NodeFact
from pvcd_plugins.vm.components import HYPERVISOR
from pvcd_plugins.vm.hypervisor import GuestState
from pvcd_plugins.vm.settings import VMSettings


async def domains(context: Context) -> dict[str, Any]:
    """Return the UUIDs of the running guests, and their memory in MiB and vCPUs in total."""
    guests = [guest for guest in (await context[HYPERVISOR].domains()).values() if guest.state is not GuestState.OFF]
    return {
        "running": sorted(str(guest.uuid) for guest in guests),
        "memory": sum(guest.memory for guest in guests),
        "vcpus": sum(guest.vcpus for guest in guests),
    }


async def capabilities(context: Context) -> dict[str, Any]:
    """Return the domain types that libvirt offers and the settings allow, emulators, architecture and machines."""
    offered = await context[HYPERVISOR].capabilities()
    allowed = context.settings.of(VMSettings).domain_types
    return {
        "domain_types": [kind for kind in allowed if kind in offered.domain_types],
        "emulators": list(offered.emulators),
        "arch": offered.arch,
        "machines": list(offered.machines),
    }


FACTS = [NodeFact("domains", domains), NodeFact("hypervisor", capabilities)]
