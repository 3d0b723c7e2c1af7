"""The XML of a built VM: the requested values, libvirt's schema, and no secret."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from lxml import etree

from pvcd.errors import Invalid
from pvcd_plugins.provisioner.domain import Interface, Machine, Volume, build
from pvcd_plugins.provisioner.metadata import SERIAL
from pvcd_plugins.vm import domain as judged
from pvcd_plugins.vm.policy import HostAccess, HostAccessRequired, refuse_host_access
from pvcd_plugins.vm.schema import mistake_in

ID = UUID("0f6e3b1a-52b0-4c8e-9d5f-6a1d0f7e2c11")
WEB1 = Machine(
    name="web1",
    uuid=ID,
    description="made of profile web",
    vcpus=2,
    memory=1024,
    interfaces=(Interface(200, "52:54:00:aa:bb:c0"), Interface(300, "52:54:00:aa:bb:c1")),
    disks=(Volume("sda", "vms", "web1_sda"), Volume("vdb", "fast", "web1_vdb")),
    domain_type="kvm",
    emulator="/usr/bin/qemu-system-x86_64",
    arch="x86_64",
    serial=True,
)


def built(**changes: Any) -> etree._Element:
    return etree.fromstring(build(replace(WEB1, **changes)))


def test_the_document_has_the_requested_values() -> None:
    domain = judged.parse(build(WEB1))
    assert (domain.name, domain.uuid, domain.description) == ("web1", ID, "made of profile web")
    assert (domain.memory, domain.vcpu, domain.vcpu_topology) == (1024, 2, "1/2/1")
    assert (domain.domain_type, domain.arch, domain.machine) == ("kvm", "x86_64", "pc")
    assert [(each.source, each.mac, each.model) for each in domain.networks] == [
        ("vmbr200", "52:54:00:aa:bb:c0", "virtio"),
        ("vmbr300", "52:54:00:aa:bb:c1", "virtio"),
    ]
    assert [(each.name, each.dev, each.bus) for each in domain.disks] == [
        ("vms/web1_sda", "sda", "scsi"),
        ("fast/web1_vdb", "vdb", "virtio"),
    ]
    assert ("scsi", "virtio-scsi") in [(each.type, each.model) for each in domain.controllers]
    assert domain.console == "pty"


@pytest.mark.parametrize("vnc", [False, True])
@pytest.mark.parametrize("serial", [False, True])
@pytest.mark.parametrize("domain_type", ["kvm", "qemu"])
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_document_conforms_to_the_schema_of_libvirt(vnc: bool, serial: bool, domain_type: str, arch: str) -> None:
    document = build(replace(WEB1, vnc=vnc, serial=serial, domain_type=domain_type, arch=arch))
    assert mistake_in(document) is None
    assert mistake_in(build(replace(WEB1, interfaces=(), disks=(), vnc=vnc, vnc_bind="::1"))) is None


@pytest.mark.parametrize("domain_type", ["kvm", "qemu"])
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_document_needs_no_access_to_the_node(domain_type: str, arch: str) -> None:
    for vnc_bind in (None, "127.0.0.1", "::1"):
        machine = replace(WEB1, vnc=True, vnc_bind=vnc_bind, domain_type=domain_type, arch=arch)
        refuse_host_access("", build(machine), HostAccess())


def test_an_open_vnc_needs_a_grant() -> None:
    with pytest.raises(HostAccessRequired, match=r"<listen address='0.0.0.0'> \(line \d+\) .* the grant 'vnc-open'"):
        refuse_host_access("", build(replace(WEB1, vnc=True, vnc_bind="0.0.0.0")), HostAccess())


def test_volumes_are_named_and_ceph_monitors_are_added_at_the_start() -> None:
    document = build(WEB1)
    assert [str(each) for each in judged.volumes(document)] == ["vms/web1_sda", "fast/web1_vdb"]
    assert judged.lacks_storage(document)
    assert not built().findall(".//auth") + built().findall(".//host")
    storage = judged.Storage((("ceph1", 3300),), "libvirt", ID)
    prepared = judged.prepare(document, generation=1, console_log="/var/log/web1.log", storage=storage)
    assert not judged.lacks_storage(prepared)
    assert mistake_in(prepared) is None


def test_the_firmware_names_the_metadata_address() -> None:
    assert built().findtext("sysinfo/system/entry[@name='serial']") == SERIAL
    assert built().find("os/smbios[@mode='sysinfo']") is not None


def test_vnc_listens_on_the_given_address() -> None:
    assert built().find("devices/graphics") is None
    listen = "devices/graphics[@type='vnc'][@autoport='yes']/listen[@type='address']"
    assert built(vnc=True).find(listen).attrib["address"] == "127.0.0.1"  # type: ignore[union-attr]
    assert built(vnc=True, vnc_bind="10.0.0.1").find(listen).attrib["address"] == "10.0.0.1"  # type: ignore[union-attr]


def test_without_a_serial_console_the_document_has_none() -> None:
    assert built(serial=False).find("devices/serial") is built(serial=False).find("devices/console") is None


def test_markup_is_escaped() -> None:
    text = "</description><memory>1</memory><description>&amp;\"'"
    assert judged.parse(build(replace(WEB1, description=text))).description == text


@pytest.mark.parametrize("name", ["a\0b", "a\x07", "\ud800"])
def test_characters_that_xml_does_not_allow_are_refused(name: str) -> None:
    with pytest.raises(Invalid, match="Cannot write the XML of VM"):
        build(replace(WEB1, description=name))
