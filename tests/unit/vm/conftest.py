"""VMs and nodes that exist in the store only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import NAMESPACE_DNS, UUID, uuid5

import pytest

from pvcd import Create, Presence, Record
from pvcd.process import ProcessIdentity
from pvcd.testing import SimulatedCluster
from pvcd_plugins.node.service import DaemonState, Node, NodeReport
from pvcd_plugins.vm.records import VM, State, VMName

EMULATOR = "/usr/bin/qemu-system-x86_64"


def uuid_of(name: str) -> UUID:
    return uuid5(NAMESPACE_DNS, name)


def domain_xml(name: str, memory: int = 128, vcpus: int = 1, kind: str = "qemu", emulator: str = EMULATOR) -> str:
    return (
        f"<domain type='{kind}'><name>{name}</name><uuid>{uuid_of(name)}</uuid><memory unit='MiB'>{memory}</memory>"
        f"<vcpu>{vcpus}</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>"
        f"<devices><emulator>{emulator}</emulator></devices></domain>"
    )


class Cluster:
    """An API without any agent, over records that a test writes."""

    def __init__(self, simulated: SimulatedCluster) -> None:
        self.simulated = simulated
        self.context = simulated.api

    async def create(self, *records: Record) -> None:
        await self.context.store.write(*map(Create, records))

    async def add_node(self, name: str, *, memory: int = 1024, load: float = 0.0, alive: bool = True) -> None:
        """A node that runs and takes VMs, as its agent leaves it in the store."""
        facts = {
            "machine": {"memory_total": memory, "load": load},
            "hypervisor": {"domain_types": ["kvm", "qemu"], "emulators": [EMULATOR]},
        }
        await self.create(
            Node(name=name),
            NodeReport(name=name, daemon_state=DaemonState.RUN, settled_generation=0, facts=facts),
            *([Presence(node=name, session=1, process=ProcessIdentity.current(), since=0)] if alive else []),
        )

    async def add_vm(
        self,
        name: str,
        node: str = "hv1",
        *,
        state: State = State.START,
        memory: int = 128,
        vcpus: int = 1,
        **more: Any,
    ) -> VM:
        """A VM as the API leaves it in the store."""
        xml = domain_xml(name, memory, vcpus)
        vm = VM(
            **({"uuid": uuid_of(name), "name": name, "state": state, "generation": 1, "node": node, "xml": xml} | more)
        )
        await self.create(VMName(name=name, uuid=vm.uuid), vm)
        return vm

    async def get(self, path: str, status: int = 200) -> Any:
        reply = await self.simulated.request("GET", f"/api/v1/{path}")
        assert reply.status == status, reply.body
        return reply.json


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with SimulatedCluster([]) as simulated:
        yield Cluster(simulated)
