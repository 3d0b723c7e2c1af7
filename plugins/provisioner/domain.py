"""The libvirt XML of a VM that is built from templates: a pure function.

It lacks Ceph's monitors and secret, which the node that starts the VM adds, so that no secret is stored. It also lacks
the version of the machine type, which another node might not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from lxml import etree

from pvcd import Invalid
from pvcd_plugins.provisioner.metadata import SERIAL

BUSES = {"s": "scsi", "v": "virtio"}
"""By the first letter of a disk's id."""
VNC_BIND = "127.0.0.1"
_X86 = ("x86_64", "i686")
_TRANSLATED_MIB = 128
"""QEMU's cache of translated code, by default a gigabyte."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface."""

    vni: int
    mac: str


@dataclass(frozen=True, slots=True)
class Volume:
    """A disk and its volume."""

    disk_id: str
    pool: str
    name: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A VM to build."""

    name: str
    uuid: UUID
    description: str
    vcpus: int
    memory: int
    """MiB."""
    interfaces: tuple[Interface, ...]
    disks: tuple[Volume, ...]
    domain_type: str
    """`kvm`, or `qemu` if no node has KVM."""
    emulator: str
    arch: str
    serial: bool = False
    vnc: bool = False
    vnc_bind: str | None = None


def build(machine: Machine) -> str:
    """Return the document. Raises `Invalid` for a character that XML does not allow."""
    try:
        domain = _domain(machine)
    except ValueError as error:
        raise Invalid(f"Cannot write the XML of VM {machine.name[:80]!r}: {error}.") from None
    etree.indent(domain)
    return etree.tostring(domain, encoding="unicode") + "\n"


def _domain(machine: Machine) -> etree._Element:
    domain = etree.Element("domain", {"type": machine.domain_type})
    _add(domain, "name", machine.name)
    _add(domain, "uuid", str(machine.uuid))
    _add(domain, "description", machine.description)
    _add(domain, "memory", str(machine.memory), unit="MiB")
    _add(domain, "vcpu", str(machine.vcpus))
    # The default CPU model is the oldest one; host-model gives guests what the node has.
    cpu = _add(domain, "cpu", **({"mode": "host-model"} if machine.domain_type == "kvm" else {}))
    _add(cpu, "topology", sockets="1", cores=str(machine.vcpus), threads="1")
    _add_system(domain, machine)
    _add(domain, "clock", offset="utc")
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "restart")):
        _add(domain, f"on_{event}", action)
    devices = _add(domain, "devices")
    _add(devices, "emulator", machine.emulator)
    for interface in machine.interfaces:
        _add_interface(devices, interface)
    _add(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    for disk in machine.disks:
        _add_disk(devices, disk)
    _add_consoles(devices, machine)
    rng = _add(devices, "rng", model="virtio")
    _add(rng, "rate", bytes="2048", period="1000")
    _add(rng, "backend", "/dev/urandom", model="random")
    _add(_add(devices, "memballoon", model="virtio"), "stats", period="10")
    return domain


def _add_system(domain: etree._Element, machine: Machine) -> None:
    """Add boot devices, and the serial number by which cloud-init finds the metadata in any image."""
    system = _add(domain, "os")
    _add(system, "type", "hvm", arch=machine.arch, **({"machine": "pc"} if machine.arch in _X86 else {}))
    for device in ("cdrom", "hd"):
        _add(system, "boot", dev=device)
    _add(system, "bootmenu", enable="yes" if machine.vnc else "no")
    _add(system, "smbios", mode="sysinfo")
    _add(_add(_add(domain, "sysinfo", type="smbios"), "system"), "entry", SERIAL, name="serial")
    features = _add(domain, "features")
    for name in ("acpi", "apic", "pae") if machine.arch in _X86 else ():
        _add(features, name)
    if machine.domain_type == "qemu":
        _add(_add(features, "tcg"), "tb-cache", str(_TRANSLATED_MIB), unit="MiB")


def _add_interface(devices: etree._Element, interface: Interface) -> None:
    element = _add(devices, "interface", type="bridge")
    _add(element, "mac", address=interface.mac)
    _add(element, "source", bridge=f"vmbr{interface.vni}")
    _add(element, "model", type="virtio")


def _add_disk(devices: etree._Element, disk: Volume) -> None:
    element = _add(devices, "disk", type="network", device="disk")
    _add(element, "driver", name="qemu", type="raw", discard="unmap")
    _add(element, "source", protocol="rbd", name=f"{disk.pool}/{disk.name}")
    _add(element, "target", dev=disk.disk_id, bus=BUSES[disk.disk_id[0]])


def _add_consoles(devices: etree._Element, machine: Machine) -> None:
    if machine.serial:
        _add(_add(devices, "serial", type="pty"), "target", port="0")
        _add(_add(devices, "console", type="pty"), "target", type="serial", port="0")
    if machine.vnc:
        _add(devices, "input", type="tablet", bus="usb")
        graphics = _add(devices, "graphics", type="vnc", port="-1", autoport="yes")
        _add(graphics, "listen", type="address", address=machine.vnc_bind or VNC_BIND)
        _add(_add(devices, "video"), "model", type="vga")


def _add(parent: etree._Element, tag: str, text: str | None = None, **attributes: str) -> etree._Element:
    element = etree.SubElement(parent, tag, attributes)
    element.text = text
    return element
