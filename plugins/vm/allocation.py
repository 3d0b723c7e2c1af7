"""What the VMs of each node take of it, kept up to date with every change so that a choice never counts them all."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache

from pvcd import Component, ComponentKey, Context, Invalid, Record, Role
from pvcd_plugins.vm.domain import parse
from pvcd_plugins.vm.records import VM
from pvcd_plugins.vm.states import WANTS_GUEST


@dataclass
class Allocated:
    """All VMs of a node, and the MiB and processors of those that run or should run."""

    vms: int = 0
    memory: int = 0
    vcpus: int = 0


class AllocationIndex:
    """By the records, and so ahead of what the nodes report."""

    def __init__(self) -> None:
        self._nodes: dict[str, Allocated] = defaultdict(Allocated)

    def of(self, node: str) -> Allocated:
        """What is taken of a node."""
        return self._nodes[node]

    def changed(self, path: str, old: Record | None, new: Record | None) -> None:
        """Follow a change of the store."""
        if isinstance(old, VM):
            self._count(old, -1)
        if isinstance(new, VM):
            self._count(new, +1)

    def _count(self, vm: VM, sign: int) -> None:
        node = self._nodes[vm.node]
        node.vms += sign
        if vm.state in WANTS_GUEST:
            memory, vcpus = _size(vm.xml)
            node.memory += sign * memory
            node.vcpus += sign * vcpus


@lru_cache(maxsize=20_000)
def _size(xml: str) -> tuple[int, int]:
    try:
        domain = parse(xml)
    except Invalid:  # written by other rules than ours; it cannot be started either
        return 0, 0
    return domain.memory, domain.vcpu


@contextlib.asynccontextmanager
async def open_allocation_index(context: Context) -> AsyncIterator[AllocationIndex]:
    """Counted from what is there, and following the store as long as it is open."""
    allocation = AllocationIndex()
    for vm in context.store.all(VM):
        allocation.changed(vm.path, None, vm)
    end = context.store.subscribe(allocation.changed)
    try:
        yield allocation
    finally:
        end()


ALLOCATION_INDEX: ComponentKey[AllocationIndex] = ComponentKey("vm-allocation")
COMPONENT = Component(ALLOCATION_INDEX, open_allocation_index, roles=(Role.API, Role.NODE, Role.WORKER))
