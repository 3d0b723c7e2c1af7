"""Identify the caller: the one VM that has an interface with the neighbor's MAC address on the bridge it came through.

Three things must hold: the network of the bridge contains the source address; the MAC address that has it there belongs
to one VM, the one that runs with it; and no lease gives the address to another VM. Headers are ignored.
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
    """A VM that asks, and where it asks from."""

    vm: VM
    network: Network
    arrival: Arrival

    @property
    def identity(self) -> str:
        """Return a text that is unique to this VM, network and address."""
        return f"{self.vm.uuid} {self.network.vni} {self.arrival.address}"


def identify(context: Context, arrival: Arrival) -> Caller | None:
    """Return the caller, or None if there is any doubt."""
    network = networks.by_bridge(context, arrival.interface)
    if network is None or network.ip4_network is None or arrival.address not in network.ip4_network:
        return None
    vm = vms.owner_of(context, network, arrival.mac)
    if vm is None:
        _note(arrival, "no VM, or one of several")
        return None
    holder = networks.mac_of(context, network, arrival.address)
    other = vms.owner_of(context, network, holder) if holder else None
    if other is not None and other.uuid != vm.uuid:
        _note(arrival, f"VM {vm.name}, at the address of VM {other.name}")
        return None
    return Caller(vm, network, arrival)


def _note(arrival: Arrival, who: str) -> None:
    # Not a warning, with which a guest could flood the log.
    log.debug("no metadata for %s: %s at %s is %s", arrival.address, arrival.mac, arrival.interface, who)
