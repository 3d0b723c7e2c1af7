"""The operations that nodes do for VMs by themselves, and the part that VMs have in the operations of others."""

from __future__ import annotations

from pvcd import Context, Guard, Listener, Operation, OperationKind
from pvcd_plugins.network.service import RETIRE
from pvcd_plugins.node.service import DRAIN, RESTORE
from pvcd_plugins.vm import handlers, volumes
from pvcd_plugins.vm.indexes import NETWORK_INDEX
from pvcd_plugins.vm.records import VM

_GUEST = {
    "vm": {"type": "string", "description": "The VM's name"},
    "uuid": {"type": "string", "format": "uuid", "description": "The VM's UUID"},
    "node": {"type": "string", "description": "The node's name"},
}
OPERATIONS = [
    OperationKind("guest-start", "A node starts the guest of a VM.", "node", _GUEST),
    OperationKind("guest-end", "The guest of a VM has ended, for whatever reason.", "node", _GUEST, ("post",)),
]


async def at_network(context: Context, operation: Operation) -> list[str]:
    """Return the VMs that keep a network from being removed."""
    found = (context.store.get(VM, uuid) for uuid in context[NETWORK_INDEX].at(str(operation.arguments["bridge"])))
    return sorted(f"VM {vm.name!r}" for vm in found if vm is not None)


GUARDS = [Guard("vm-volumes", tuple(volumes.GUARDED), volumes.protect)]
LISTENERS = [
    Listener("vm-drain", (DRAIN,), handlers.drain),
    Listener("vm-restore", (RESTORE,), handlers.restore),
    Listener("vm-networks", (RETIRE,), at_network),
]
