"""`python -m tests.nodes NAME...`: the agents of several nodes in one process, on the settings of PVC_CONFIG_FILE.

Only the hypervisors, links, packet filters and the facts of the machines are fakes; each machine has a different load.
With real links, these agents would remove the bridges of other agents in the same network namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

from pvcd import Context, NodeFact, Role
from pvcd.clock import SystemClock
from pvcd.daemon.agent import agent
from pvcd.daemon.components import make_context
from pvcd.daemon.run import tree
from pvcd.plugin import registry
from pvcd.plugin.registry import Registry
from pvcd.settings import read_file, settings_file
from pvcd.testing import opened
from pvcd_plugins.network.bridge.fake import FakeBridges
from pvcd_plugins.network.components import BRIDGES, FIREWALL, GATEWAYS
from pvcd_plugins.network.firewall.fake import FakeFirewall
from pvcd_plugins.vm.components import HYPERVISOR, wake_vms
from pvcd_plugins.vm.hypervisor.fake import FakeHypervisor

LOADS = {"hv1": 3.0, "hv2": 1.0, "hv3": 2.0, "hv4": 4.0}
NO_COORDINATORS = ("hv4",)


async def machine(context: Context) -> dict[str, Any]:
    """Return the facts of each machine."""
    memory = {"memory_total": 4096, "memory_free": 2048, "memory_used": 2048}
    return {"cpu_count": 8, "kernel": "6", "os": "GNU/Linux", "arch": "x86_64", "load": LOADS[context.node], **memory}


@contextlib.asynccontextmanager
async def fake_hypervisor(context: Context) -> AsyncIterator[FakeHypervisor]:
    """Guests that exist in name only and shut down at once."""
    hypervisor = FakeHypervisor(context.clock, shutdown_seconds=0.2)
    hypervisor.listen(lambda uuid: wake_vms(context, uuid))
    await hypervisor.open()
    try:
        yield hypervisor
    finally:
        await hypervisor.close()


FAKES: dict[Any, Any] = {
    HYPERVISOR: fake_hypervisor,
    BRIDGES: lambda context: opened(FakeBridges()),
    GATEWAYS: lambda context: opened(FakeBridges()),
    FIREWALL: lambda context: opened(FakeFirewall()),
}


def with_fakes(declared: Registry) -> Registry:
    """The plugins as they are, but for the hypervisor, the links, the packet filter and the machine."""
    components = tuple(
        dataclasses.replace(each, open=FAKES[each.key]) if each.key in FAKES else each for each in declared.components
    )
    facts = tuple(NodeFact("machine", machine) if each.name == "machine" else each for each in declared.node_facts)
    return dataclasses.replace(declared, components=components, node_facts=facts)


async def run(names: list[str]) -> None:
    """Run the agents until SIGTERM."""
    settings, declared = registry.start(read_file(settings_file()))
    declared = with_fakes(declared)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            node = settings.node.model_copy(update={"name": name, "coordinator": name not in NO_COORDINATORS})
            mine = settings.model_copy(update={"node": node})
            context = make_context(Role.NODE, mine, declared, tree(mine), SystemClock(), name)
            await stack.enter_async_context(agent(context))
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1:]))
