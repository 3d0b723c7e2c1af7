"""A VM's XML is read as libvirt reads it, checked before use, and marked for its start."""

from uuid import UUID

import pytest
from lxml import etree

from pvcd.errors import Invalid
from pvcd_plugins.vm.domain import (
    MAX_XML_BYTES,
    Controller,
    Disk,
    Domain,
    Network,
    generation_of,
    parse,
    prepare,
    read_input,
    volumes,
)

ID = UUID("0f6e3b1a-52b0-4c8e-9d5f-6a1d0f7e2c11")

WEB1 = f"""<?xml version="1.0" encoding="UTF-8"?>
<domain type="kvm">
  <name>web1</name>
  <uuid>{ID}</uuid>
  <description>front end</description>
  <memory unit="MiB">2048</memory>
  <vcpu>2</vcpu>
  <cpu><topology sockets="1" cores="2" threads="1"/></cpu>
  <os><type arch="x86_64" machine="pc-i440fx-2.7">hvm</type></os>
  <features><acpi/><apic/><pae/></features>
  <devices>
    <emulator>/usr/bin/kvm</emulator>
    <controller type="usb"/>
    <controller type="scsi" model="virtio-scsi"/>
    <disk type="network" device="disk">
      <driver name="qemu" type="raw"/>
      <source protocol="rbd" name="vms/web1_sda"><host name="ceph1" port="6789"/></source>
      <target dev="sda" bus="scsi"/>
    </disk>
    <interface type="bridge">
      <mac address="52:54:00:3c:81:a0"/><source bridge="vmbr200"/><model type="virtio"/>
    </interface>
    <serial type="pty"/>
    <console type="pty"/>
  </devices>
</domain>
"""
SMALL = f"<domain type='qemu'><name>a</name><uuid>{ID}</uuid><memory>1048576</memory></domain>"


def with_devices(*devices: str) -> str:
    return SMALL.replace("</domain>", f"<devices>{''.join(devices)}</devices></domain>")


def with_memory(element: str) -> str:
    return SMALL.replace("<memory>1048576</memory>", element)


class TestParse:
    def test_every_field_is_read(self) -> None:
        assert parse(WEB1) == Domain(
            name="web1",
            uuid=ID,
            domain_type="kvm",
            description="front end",
            type="hvm",
            arch="x86_64",
            machine="pc-i440fx-2.7",
            emulator="/usr/bin/kvm",
            memory=2048,
            vcpu=2,
            vcpu_topology="1/2/1",
            networks=(Network(type="bridge", mac="52:54:00:3c:81:a0", source="vmbr200", model="virtio"),),
            console="pty",
            features=("acpi", "apic", "pae"),
            disks=(Disk(type="rbd", name="vms/web1_sda", dev="sda", bus="scsi"),),
            controllers=(Controller(type="usb", model=None), Controller(type="scsi", model="virtio-scsi")),
        )

    def test_a_missing_element_is_none(self) -> None:
        assert parse(SMALL) == Domain(
            name="a",
            uuid=ID,
            domain_type="qemu",
            description=None,
            type=None,
            arch=None,
            machine=None,
            emulator=None,
            memory=1024,
            vcpu=1,
            vcpu_topology=None,
            networks=(),
            console=None,
            features=(),
            disks=(),
            controllers=(),
        )

    @pytest.mark.parametrize(
        ("element", "disk"),
        [
            ("<disk type='file'><source file='/a.raw'/><target dev='vda' bus='virtio'/></disk>", ("file", "/a.raw")),
            ("<disk type='block'><source dev='/dev/x'/><target dev='vda' bus='virtio'/></disk>", ("block", "/dev/x")),
            ("<disk type='volume'><source pool='p'/><target dev='vda' bus='virtio'/></disk>", ("volume", None)),
            ("<disk type='file' device='cdrom'><target dev='vda' bus='virtio'/></disk>", ("file", None)),
        ],
    )
    def test_a_disk_is_named_by_its_source(self, element: str, disk: tuple[str, str | None]) -> None:
        assert parse(with_devices(element)).disks == (Disk(type=disk[0], name=disk[1], dev="vda", bus="virtio"),)

    @pytest.mark.parametrize(
        ("element", "source"),
        [
            ("<interface type='network'><source network='default'/></interface>", "default"),
            ("<interface type='direct'><source dev='eth0' mode='bridge'/></interface>", "eth0"),
            ("<interface type='user'/>", None),
        ],
    )
    def test_a_network_is_named_by_its_source(self, element: str, source: str | None) -> None:
        assert parse(with_devices(element)).networks[0].source == source

    @pytest.mark.parametrize(
        ("element", "mebibytes"),
        [
            ("<memory>1048576</memory>", 1024),
            ("<memory unit='KiB'>1025</memory>", 2),
            ("<memory unit='k'>1024</memory>", 1),
            ("<memory unit='bytes'>1048577</memory>", 2),
            ("<memory unit='b'>1</memory>", 1),
            ("<memory unit='KB'>1049</memory>", 2),
            ("<memory unit='MB'>1000</memory>", 954),
            ("<memory unit='m'>3</memory>", 3),
            ("<memory unit='GiB'> 2 </memory>", 2048),
            ("<memory unit='GB'>1</memory>", 954),
            ("<memory unit='T'>1</memory>", 1024 * 1024),
            ("<memory unit='PiB'>1</memory>", 1024**3),
            ("<memory unit='EB'>1</memory>", 953674316407),
        ],
    )
    def test_memory_is_read_in_each_unit_of_libvirt_and_rounded_up(self, element: str, mebibytes: int) -> None:
        assert parse(with_memory(element)).memory == mebibytes

    def test_text_is_joined_across_comments_and_sections_as_libvirt_does_it(self) -> None:
        assert parse(SMALL.replace(">a<", ">we<!-- -->b<![CDATA[1]]><")).name == "web1"

    def test_a_uuid_may_be_written_without_dashes(self) -> None:
        assert parse(SMALL.replace(str(ID), ID.hex.upper())).uuid == ID


LAUGHS = "<!DOCTYPE domain [<!ENTITY a 'ha'>{}]>".format(
    "".join(f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(12))
)


class TestRefusal:
    @pytest.mark.parametrize(
        ("xml", "sentence"),
        [
            ("", r"not well-formed: line 1: "),
            ("\0", r"not well-formed"),
            ("no xml", r"not well-formed: line 1: Start tag expected"),
            ("<domain>\n<name>\n</domain>", r"not well-formed: line 3: Opening and ending tag mismatch: name"),
            ("<domain/><domain/>", r"not well-formed: line 1: Extra content"),
            ("\ud800", r"cannot contain surrogate characters"),
            (f"<domain>{' ' * MAX_XML_BYTES}</domain>", r"must be at most 256 KiB"),
            ("<network/>", r"must be a <domain>; got <network>"),
            ("<domain xmlns='urn:x'/>", r"must be a <domain>; got <\{urn:x\}domain>"),
            ("<domain/>", r"requires a <name>"),
            ("<domain><name> </name></domain>", r"requires a <name>"),
            ("<domain><name>a</name></domain>", r"requires a <uuid>"),
            (SMALL.replace(">a<", ">a/b<"), r"<name> must be .*; got 'a/b'"),
            (SMALL.replace(">a<", ">a\nb<"), r"<name> must be .*; got 'a\\nb'"),
            (SMALL.replace(">a<", f">{'a' * 129}<"), r"<name> must be "),
            (SMALL.replace(str(ID), "nothing"), r"<uuid> must look like .*; got 'nothing'"),
            (SMALL.replace(str(ID), "{" + str(ID) + "}"), r"<uuid> must look like "),
            (with_memory(""), r"requires a <memory>"),
            (with_memory("<memory>much</memory>"), r"<memory> must be a number; got 'much'"),
            (with_memory("<memory>-1</memory>"), r"<memory> must be a number; got '-1'"),
            (with_memory("<memory unit='x'>1</memory>"), r"unit of <memory> must .*; got 'x'"),
            (with_memory("<memory unit='bib'>1</memory>"), r"unit of <memory> must .*; got 'bib'"),
            (with_memory("<memory>1</memory><vcpu>0</vcpu>"), r"<vcpu> must .*; got '0'"),
            (with_memory("<memory>1</memory><vcpu>two</vcpu>"), r"<vcpu> must .*; got 'two'"),
        ],
    )
    def test_a_document_that_is_not_a_domain_is_refused_with_a_sentence(self, xml: str, sentence: str) -> None:
        with pytest.raises(Invalid, match=sentence) as caught:
            parse(xml)
        assert caught.value.sentence.endswith(".") and "\n" not in caught.value.sentence

    @pytest.mark.parametrize(
        "read", [parse, volumes, read_input, lambda xml: prepare(xml, generation=1, console_log=None)]
    )
    @pytest.mark.parametrize(
        "prologue",
        [
            LAUGHS,
            "<!DOCTYPE domain>",
            "<!DOCTYPE domain SYSTEM 'http://127.0.0.1:1/x.dtd'>",
            "<!DOCTYPE domain [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>",
            "<!DOCTYPE domain [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]>",
            "<?xml version='1.0' encoding='UTF-16'?><!DOCTYPE domain [<!ENTITY a 'x'>]>",
        ],
    )
    def test_every_doctype_is_refused(self, prologue: str, read: object) -> None:
        assert callable(read)
        with pytest.raises(Invalid, match="cannot contain a DOCTYPE"):
            read(prologue + SMALL.replace(">a<", ">&a;<"))

    def test_an_entity_without_a_doctype_is_refused(self) -> None:
        with pytest.raises(Invalid, match="not well-formed"):
            parse(SMALL.replace(">a<", ">&file;<"))

    @pytest.mark.parametrize("xml", ["<?x y?>" + SMALL, SMALL + "<?x y?>", SMALL.replace(">a<", ">a<?x y?><")])
    def test_a_processing_instruction_is_refused(self, xml: str) -> None:
        with pytest.raises(Invalid, match="processing instruction"):
            parse(xml)

    def test_deep_nesting_is_refused(self) -> None:
        depth = 10_000
        with pytest.raises(Invalid, match="not well-formed"):
            parse(SMALL.replace("</domain>", "<a>" * depth + "</a>" * depth + "</domain>"))

    def test_an_inclusion_is_not_followed(self) -> None:
        include = "<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='/etc/passwd' parse='text'/>"
        assert parse(SMALL.replace("</domain>", f"<description>{include}</description></domain>")).description is None

    def test_a_declared_encoding_is_ignored(self) -> None:
        assert parse("<?xml version='1.0' encoding='UTF-7'?>" + SMALL.replace(">a<", ">+ADw-<", 0)).name == "a"


class TestPrepare:
    def test_the_document_is_marked_with_its_generation(self) -> None:
        assert generation_of(SMALL) is None
        assert generation_of(prepare(SMALL, generation=7, console_log=None)) == 7

    def test_a_document_of_libvirt_is_read_beyond_the_limits_of_input(self) -> None:
        xml = SMALL.replace("</domain>", "<description>" + "'" * 44_000 + "</description></domain>")
        given = prepare(xml, generation=7, console_log=None).replace("'" * 44_000, "&apos;" * 44_000)
        assert len(given) > MAX_XML_BYTES > len(xml)
        assert generation_of(given) == 7

    def test_entities_of_a_document_of_libvirt_are_not_expanded(self) -> None:
        marked = prepare(SMALL, generation=7, console_log=None)
        assert generation_of("<!DOCTYPE domain [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>" + marked) == 7

    def test_preparing_twice_is_like_preparing_once(self) -> None:
        once = prepare(WEB1, generation=8, console_log="/b")
        assert prepare(once, generation=8, console_log="/b") == once
        assert prepare(prepare(WEB1, generation=7, console_log="/a"), generation=8, console_log="/b") == once

    def test_other_metadata_is_kept(self) -> None:
        other = "<metadata><o:x xmlns:o='urn:other' generation='3'/></metadata>"
        prepared = prepare(SMALL.replace("</domain>", f"{other}</domain>"), generation=7, console_log=None)
        assert generation_of(prepared) == 7
        assert [child.tag for child in etree.fromstring(prepared).iterfind("metadata/*")] == [
            "{urn:other}x",
            "{urn:pvcd:domain:1}vm",
        ]

    def test_the_first_serial_device_is_logged_in_place_of_any_log_of_its_own(self) -> None:
        serial = "<serial type='pty'><log file='/etc/shadow' append='off'/></serial>"
        prepared = etree.fromstring(
            prepare(with_devices(serial, "<serial type='pty'/>"), generation=1, console_log="/log")
        )
        assert [dict(log.attrib) for log in prepared.iterfind("devices/serial/log")] == [
            {"file": "/log", "append": "on"}
        ]
        assert prepared.find("devices/serial[1]/log") is not None

    @pytest.mark.parametrize(
        ("graphics", "addresses"),
        [
            ("<graphics type='vnc'/>", ["127.0.0.1"]),
            ("<graphics type='spice'><listen type='address'/></graphics>", ["127.0.0.1"]),
            ("<graphics type='vnc'><listen type='none'/></graphics>", []),
            ("<graphics type='vnc' socket='/run/vnc'/>", []),
            ("<graphics type='vnc' listen='10.0.0.1'><listen type='address'/></graphics>", ["10.0.0.1"]),
            ("<graphics type='vnc'><listen type='address' address='10.0.0.1'/></graphics>", ["10.0.0.1"]),
            ("<graphics type='sdl'/>", []),
        ],
    )
    def test_graphics_without_an_address_listen_on_loopback(self, graphics: str, addresses: list[str]) -> None:
        xml = prepare(with_devices(graphics), generation=1, console_log=None)
        assert etree.fromstring(xml).xpath("//graphics/@listen | //graphics/listen/@address") == addresses

    def test_without_a_serial_device_nothing_is_logged(self) -> None:
        assert "log" not in prepare(with_devices("<console type='pty'/>"), generation=1, console_log="/log")

    @pytest.mark.parametrize("generation", ["", "-1", "x", "9" * 30])
    def test_a_mark_that_is_not_a_number_is_none(self, generation: str) -> None:
        mark = f"<metadata><p:vm xmlns:p='urn:pvcd:domain:1' generation='{generation}'/></metadata>"
        assert generation_of(SMALL.replace("</domain>", f"{mark}</domain>")) is None

    def test_preparing_does_not_change_the_domain(self) -> None:
        assert parse(prepare(WEB1, generation=7, console_log="/log & <more>")) == parse(WEB1)
