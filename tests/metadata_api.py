"""The metadata API as a separate plugin, and the VMs, networks and leases that its tests use."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from types import ModuleType
from typing import Any
from uuid import NAMESPACE_DNS, UUID, uuid5

from pvcd import PLUGIN_API_1, Context, Record, hookimpl
from pvcd_plugins.network.bridge import Kind
from pvcd_plugins.network.dhcp import Reservation
from pvcd_plugins.network.records import Lease, Network, Reservations
from pvcd_plugins.provisioner.components import metadata_component
from pvcd_plugins.provisioner.handlers import primary
from pvcd_plugins.provisioner.metadata import Describe
from pvcd_plugins.provisioner.records import GuestMetadata
from pvcd_plugins.provisioner.settings import METADATA_SECTION
from pvcd_plugins.vm.records import VM

BRIDGE, GATEWAY = "vmbr200", "10.20.0.1"
WEB, DB, NOBODY = "52:54:00:00:00:11", "52:54:00:00:00:12", "52:54:00:00:00:99"
KEYS = ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2 admin@pvc", "ssh-rsa AAAAB3NzaC1yc2E= second@pvc")
FOR_ALL = "#cloud-config\nwrite_files:\n- path: /root/from-userdata\n  content: {name} says 100 % & +\n"


async def describe(context: Context, vm: VM) -> GuestMetadata:
    """Return the same for all VMs except for their names."""
    return GuestMetadata(uuid=vm.uuid, userdata=FOR_ALL.format(name=vm.name), ssh_keys=KEYS)


def part(describe: Describe = describe) -> ModuleType:
    """Return a plugin that is the metadata API and nothing else."""
    module = ModuleType("metadata_api")
    declared = {
        "settings": [METADATA_SECTION],
        "records": [GuestMetadata],
        "components": [metadata_component(describe)],
        "handlers": [primary],
    }
    module.__dict__["REQUIRES_PLUGIN_API"] = PLUGIN_API_1
    for kind, things in declared.items():
        setattr(module, f"register_{kind}", hookimpl(lambda things=things: things))
    return module


def uuid_of(name: str) -> UUID:
    return uuid5(NAMESPACE_DNS, name)


def vm(name: str, mac: str, bridge: str = BRIDGE, **more: Any) -> VM:
    """A VM with an interface."""
    interface = f"<interface type='bridge'><mac address='{mac}'/><source bridge='{bridge}'/></interface>"
    xml = (
        f"<domain type='qemu'><name>{name}</name><uuid>{uuid_of(name)}</uuid><memory unit='MiB'>64</memory>"
        f"<os><type>hvm</type></os><devices>{interface}</devices></domain>"
    )
    return VM(**({"uuid": uuid_of(name), "name": name, "node": "hv1", "xml": xml, "profile": "small"} | more))


def network(vni: int = 200, prefix: str = "10.20.0", **more: Any) -> Network:
    """A managed network."""
    values = {"ip4_network": ip_network(f"{prefix}.0/24"), "ip4_gateway": ip_address(f"{prefix}.1")}
    named = {"vni": vni, "description": f"net{vni}", "kind": Kind.MANAGED, "domain": f"net{vni}.example"}
    return Network(**(named | values | more))


def reserved(mac: str, address: str, vni: int = 200) -> Record:
    """The network's only static lease."""
    return Reservations(vni=vni, reservations=(Reservation(mac, ip_address(address)),))  # type: ignore[arg-type]


def lease(mac: str, address: str, vni: int = 200, expires: float = 1e10) -> Record:
    return Lease(vni=vni, address=ip_address(address), mac=mac, expires=expires)
