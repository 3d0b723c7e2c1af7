"""Fill a store with a running cluster of a given size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from uuid import NAMESPACE_DNS, UUID, uuid5

from bench.plugins.filler import Filler
from bench.servers import LOGIN
from pvcd.plugin.registry import collect
from pvcd.store import Create, Store
from pvcd.store.zookeeper import ZooKeeperTree
from pvcd_plugins.node.records import DaemonState, Node, NodeReport
from pvcd_plugins.sandbox.guest import boot_sector_domain
from pvcd_plugins.vm.records import VM, State, VMName, VMReport

NODES = 12
FILLERS = 50 * 31
"""50 networks, each with 20 leases and 10 rules."""
RECORDS = (*collect([]).records, Node, NodeReport, VM, VMName, VMReport, Filler)
CHANGES_PER_TRANSACTION = 50


def vm_uuid(number: int) -> UUID:
    """Return the UUID of a VM."""
    return uuid5(NAMESPACE_DNS, f"vm{number}")


def vm_xml(number: int, name: str | None = None, uuid: UUID | None = None) -> str:
    """Return a definition of about 2 KB."""
    xml = boot_sector_domain(name or f"vm{number}", uuid or vm_uuid(number), Path(f"/var/{number}.img"), "qemu")
    return xml.replace("<devices>", f"<description>{'A server of the shop. ' * 50}</description>\n  <devices>")


async def fill(zookeeper: str, chroot: str, vms: int) -> None:
    """Write everything into an empty store."""
    store = Store(ZooKeeperTree(zookeeper, chroot=chroot, deadline=10, **LOGIN), RECORDS)
    await store.open()
    try:
        changes = _everything(vms)
        while some := list(islice(changes, CHANGES_PER_TRANSACTION)):
            await store.write(*some)
    finally:
        await store.close()


def _everything(vms: int) -> Iterator[Create]:
    facts = {
        "machine": {"cpu_count": 32, "memory_total": 512_000, "memory_free": 1, "memory_used": 1, "load": 1.0},
        "hypervisor": {"domain_types": ["qemu"], "emulators": ["/usr/bin/qemu-system-x86_64"]},
    }
    for number in range(NODES):
        name = f"hv{number}"
        yield Create(Node(name=name, coordinator=number < 3))
        yield Create(NodeReport(name=name, daemon_state=DaemonState.RUN, settled_generation=0, facts=facts))
    for number in range(vms):
        uuid, node = vm_uuid(number), f"hv{number % NODES}"
        yield Create(VMName(name=f"vm{number}", uuid=uuid))
        yield Create(VM(uuid=uuid, name=f"vm{number}", state=State.START, generation=1, node=node, xml=vm_xml(number)))
        yield Create(
            VMReport(uuid=uuid, node=node, running=True, observed_generation=1, guest_generation=1, updated=time.time())
        )
    for number in range(FILLERS):
        yield Create(Filler(number=number, text="x" * 250))
