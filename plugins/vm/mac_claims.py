"""The claims on MAC addresses: in a network, no two VMs have one."""

from __future__ import annotations

from pvcd import Change, Check, Conflict, Context, Create, Delete, Invalid, Put
from pvcd_plugins.network import service as networks
from pvcd_plugins.vm.indexes import NETWORK_INDEX, attachments_of
from pvcd_plugins.vm.records import VM, MacClaim, VMReport
from pvcd_plugins.vm.states import is_off

Key = tuple[int, str]
"""VNI and MAC address."""


class MacTaken(Conflict):
    """Another VM has a MAC address in a network."""

    code = "mac-taken"

    def __init__(self, vm: VM, owner: VM, mac: str, network: networks.Network) -> None:
        super().__init__(
            f"Cannot define VM {vm.name!r}: VM {owner.name!r} has the MAC address {mac} in {network}. "
            "Choose another address."
        )


async def claim_macs(context: Context, vm: VM, before: VM | None = None) -> list[Change]:
    """Return the changes that claim the addresses of a VM, to be written in one transaction with its definition.

    They also release those of its definition `before`, unless a guest may still have them.
    """
    wanted, changes = _keys(context, vm.xml), list[Change]()
    for vni, mac in dict.fromkeys(wanted):
        network = networks.find(context, str(vni))
        if wanted.count((vni, mac)) > 1:
            raise Invalid(
                f"Cannot define VM {vm.name!r}: two of its interfaces have the MAC address {mac} in {network}."
            )
        changes += await _claim(context, vm, network, mac)
    if before is not None and is_off(before, context.store.get(VMReport, vm.uuid)):
        dropped = [context.store.get(MacClaim, *key) for key in set(_keys(context, before.xml)) - set(wanted)]
        changes += [Delete(claim) for claim in dropped if claim is not None and claim.vm == vm.uuid]
    return changes


async def _claim(context: Context, vm: VM, network: networks.Network, mac: str) -> list[Change]:
    for uuid in sorted(context[NETWORK_INDEX].with_interface(network.bridge, mac) - {vm.uuid}):
        if owner := context.store.get(VM, uuid):
            raise MacTaken(vm, owner, mac, network)
    claim = context.store.get(MacClaim, network.vni, mac)
    if claim is None:
        return [Create(MacClaim(vni=network.vni, mac=mac, vm=vm.uuid))]
    if claim.vm == vm.uuid:
        return [Check(claim)]
    owner = await context.store.read(VM, claim.vm)  # the index may not know it yet
    if owner is None:
        return [Put(claim.changed(vm=vm.uuid))]
    if (network.bridge, mac) in attachments_of(owner.xml) or not is_off(
        owner, await context.store.read(VMReport, owner.uuid)
    ):
        raise MacTaken(vm, owner, mac, network)
    return [Put(claim.changed(vm=vm.uuid)), Check(owner)]


def owner_of(context: Context, network: networks.Network, mac: str) -> VM | None:
    """Return the VM that has an address in a network; None if there is none, or any doubt.

    Where definitions from before there were claims share it, that is the only one that runs, or the one with the claim.
    """
    known = (context.store.get(VM, uuid) for uuid in context[NETWORK_INDEX].with_interface(network.bridge, mac))
    found = [vm for vm in known if vm is not None]
    if len(found) > 1:
        running = [vm for vm in found if (report := context.store.get(VMReport, vm.uuid)) and report.running]
        claim = context.store.get(MacClaim, network.vni, mac.lower())
        found = running if len(running) == 1 else [vm for vm in running if claim and claim.vm == vm.uuid]
    return found[0] if found else None


def mac_claims_of(context: Context, vm: VM) -> list[MacClaim]:
    """Return the claims that go when a VM is forgotten."""
    return [claim for claim in context.store.all(MacClaim) if claim.vm == vm.uuid]


def _keys(context: Context, xml: str) -> list[Key]:
    """Return the addresses of a definition in our networks."""
    found = [(networks.by_bridge(context, bridge), mac) for bridge, mac in attachments_of(xml) if mac]
    return [(network.vni, mac) for network, mac in found if network is not None]
