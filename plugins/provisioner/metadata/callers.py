"""Who asks: the one VM that has an interface with the neighbour's MAC address at the bridge through which it came.

Three things must agree: the network of the bridge holds the source address; the MAC address that has it there is one
VM's; and no lease has given the address to another VM. Headers say nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pvcd import Context
from pvcd_plugins.network import service as networks
from pvcd_plugins.network.service import Network
from pvcd_plugins.provisioner.metadata import Arrival
from pvcd_plugins.vm import service as vms
from pvcd_plugins.vm.service import VM

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """A VM that asks, and from where."""

    vm: VM
    network: Network
    arrival: Arrival

    @property
    def identity(self) -> str:
        """What another VM, another network or another address would not have."""
        return f"{self.vm.uuid} {self.network.vni} {self.arrival.address}"


def identify(context: Context, arrival: Arrival) -> Caller | None:
    """Who asks, or None for everybody about whom there is a doubt."""
    network = networks.by_bridge(context, arrival.interface)
    if network is None or network.ip4_network is None or arrival.address not in network.ip4_network:
        return None
    found = vms.with_interface(context, network.bridge, arrival.mac)
    if len(found) != 1:
        _note(arrival, " and ".join(sorted(f"VM {vm.name}" for vm in found)) or "no VM")
        return None
    holder = networks.mac_of(context, network, arrival.address)
    others = [vm for vm in vms.with_interface(context, network.bridge, holder or "") if vm.uuid != found[0].uuid]
    if holder and others:
        _note(arrival, f"VM {found[0].name}, at the address of VM {others[0].name}")
        return None
    return Caller(found[0], network, arrival)


def _note(arrival: Arrival, who: str) -> None:
    # No warning, of which a guest could make as many as it likes.
    log.debug("nothing is told to %s: %s at %s is %s", arrival.address, arrival.mac, arrival.interface, who)
