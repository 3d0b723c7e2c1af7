"""A VM's libvirt XML: read, checked and prepared for a start, by pure functions. Documents are untrusted input."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from lxml import etree
from pydantic import BaseModel, ConfigDict

from pvcd import NAME_PATTERN, Invalid

MAX_XML_BYTES = 256 * 1024
NAMESPACE = "urn:pvcd:domain:1"
LOOPBACK = "127.0.0.1"

_MARK = f"{{{NAMESPACE}}}vm"
_MIB = 1024 * 1024


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Network(_Model):
    """One network interface of a domain."""

    type: str | None
    mac: str | None
    source: str | None
    model: str | None


class Disk(_Model):
    """One disk of a domain; `name` is pool/volume, a path or a device, by its type."""

    type: str | None
    name: str | None
    dev: str | None
    bus: str | None


class Controller(_Model):
    """One controller of a domain."""

    type: str | None
    model: str | None


class Domain(_Model):
    """A domain as its XML describes it; None stands for what is missing."""

    name: str
    uuid: UUID
    domain_type: str
    """The hypervisor: "kvm", "qemu" ..."""
    description: str | None
    type: str | None
    """The kind of guest: "hvm"."""
    arch: str | None
    machine: str | None
    emulator: str | None
    memory: int
    """MiB, rounded up."""
    vcpu: int
    vcpu_topology: str | None
    """Sockets, cores and threads as "S/C/T"."""
    networks: tuple[Network, ...]
    console: str | None
    features: tuple[str, ...]
    disks: tuple[Disk, ...]
    controllers: tuple[Controller, ...]


@dataclass(frozen=True, slots=True)
class UsedVolume:
    """A Ceph volume that a domain uses."""

    pool: str
    volume: str
    writes: bool

    def __str__(self) -> str:
        return f"{self.pool}/{self.volume}"


@dataclass(frozen=True, slots=True)
class Storage:
    """The access of guests to Ceph."""

    hosts: tuple[tuple[str, int], ...]
    user: str
    secret: UUID
    """The UUID of the libvirt secret with the user's key."""


def parse(xml: str) -> Domain:
    """Return the domain that a document describes. Raises `Invalid` for one that cannot be the XML of a domain."""
    root = read_input(xml)
    return Domain(
        name=_name(root),
        uuid=_uuid(root),
        domain_type=root.get("type", ""),
        description=_text(root, "description"),
        type=_text(root, "os/type"),
        arch=_attribute(root, "os/type", "arch"),
        machine=_attribute(root, "os/type", "machine"),
        emulator=_text(root, "devices/emulator"),
        memory=_memory(root),
        vcpu=_vcpu(root),
        vcpu_topology=_topology(root),
        networks=tuple(map(_network, root.findall("devices/interface"))),
        console=_attribute(root, "devices/console", "type"),
        features=tuple(str(feature.tag) for feature in root.findall("features/*")),
        disks=tuple(map(_disk, root.findall("devices/disk"))),
        controllers=tuple(
            Controller(type=controller.get("type"), model=controller.get("model"))
            for controller in root.findall("devices/controller")
        ),
    )


def volumes(xml: str) -> tuple[UsedVolume, ...]:
    """Return the Ceph volumes of a document, each once. Raises `Invalid` for a source that does not name a volume."""
    writes: dict[tuple[str, str], bool] = {}
    for disk, source in _rbd_disks(read_input(xml)):
        name = source.get("name", "")
        key = tuple(name.split("/"))
        if len(key) != 2 or not all(len(part) <= 128 and re.fullmatch(NAME_PATTERN, part) for part in key):
            raise Invalid(f"The name of an RBD disk source must be pool/volume; got {name[:260]!r}.")
        written = disk.find("readonly") is None and disk.get("device") != "cdrom" and source.find("snapshot") is None
        writes[key] = writes.get(key, False) or written
    return tuple(UsedVolume(*key, written) for key, written in writes.items())


def lacks_storage(xml: str) -> bool:
    """Return whether a document has an RBD disk without monitors or without authentication."""
    return any(_lacks_auth(disk) or _lacks_hosts(source) for disk, source in _rbd_disks(read_input(xml)))


def prepare(xml: str, *, generation: int, console_log: str | None, storage: Storage | None = None) -> str:
    """Return the document to start: marked with its generation, its first serial device logged to `console_log`.

    With `storage`, RBD disks without monitors or authentication are completed. Graphics without an address listen on
    loopback, not where libvirt's qemu.conf says.
    """
    root = read_input(xml)
    for graphics in root.findall("devices/graphics"):
        if graphics.get("type") in ("vnc", "spice"):
            _complete_listen(graphics)
    if storage is not None:
        for disk, source in _rbd_disks(root):
            _complete(disk, source, storage)
    metadata = root.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(root, "metadata")
    for mark in metadata.findall(_MARK):
        metadata.remove(mark)
    etree.SubElement(metadata, _MARK, {"generation": str(generation)}, nsmap={"pvcd": NAMESPACE})
    serial = root.find("devices/serial")
    if serial is not None and console_log is not None:
        for log in serial.findall("log"):
            serial.remove(log)
        etree.SubElement(serial, "log", {"file": console_log, "append": "on"})
    return etree.tostring(root, encoding="unicode")


def _rbd_disks(root: etree._Element) -> list[tuple[etree._Element, etree._Element]]:
    """Return each RBD disk with its source."""
    disks = ((disk, disk.find("source")) for disk in root.findall("devices/disk[@type='network']"))
    return [(disk, source) for disk, source in disks if source is not None and source.get("protocol") == "rbd"]


def _lacks_auth(disk: etree._Element) -> bool:
    return disk.find("auth") is None and disk.find("source/auth") is None


def _lacks_hosts(source: etree._Element) -> bool:
    return source.find("host") is None and source.find("config") is None


def _complete(disk: etree._Element, source: etree._Element, storage: Storage) -> None:
    # Hosts rather than a configuration file: they are valid on every node that the guest is migrated to.
    if _lacks_hosts(source):
        for place, (host, port) in enumerate(storage.hosts):
            source.insert(place, etree.Element("host", {"name": host, "port": str(port)}))
    if _lacks_auth(disk):
        auth = etree.SubElement(source, "auth", {"username": storage.user})
        etree.SubElement(auth, "secret", {"type": "ceph", "uuid": str(storage.secret)})


def _complete_listen(graphics: etree._Element) -> None:
    if graphics.get("listen") or graphics.get("socket"):
        return
    listens = graphics.findall("listen")
    if not listens:
        graphics.set("listen", LOOPBACK)
    for listen in listens:
        if listen.get("type") == "address" and not listen.get("address"):
            listen.set("address", LOOPBACK)


def generation_of(xml: str) -> int | None:
    """Return the generation that `prepare` marked a document with, as libvirt gives it; None if it is not marked.

    The limits of input do not apply: libvirt's document of a guest is longer than the one that was started.
    """
    mark = _root(_encode(xml), huge=True).find(f"metadata/{_MARK}")
    generation = "" if mark is None else mark.get("generation", "")
    return int(generation) if re.fullmatch(r"[0-9]{1,18}", generation) else None


def read_input(xml: str) -> etree._Element:
    """Return the root of a user's document: small, well-formed, self-contained and of a domain. Raises `Invalid`."""
    data = _encode(xml)
    if len(data) > MAX_XML_BYTES:
        raise Invalid(f"The XML must be at most {MAX_XML_BYTES // 1024} KiB; got {len(data)} bytes.")
    # Checked before parsing: without a DOCTYPE there are no entities to expand or to fetch.
    if b"<!DOCTYPE" in data:
        raise Invalid("The XML cannot contain a DOCTYPE.")
    root = _root(data)
    if root.xpath("//processing-instruction()"):
        raise Invalid("The XML cannot contain processing instructions.")
    if root.tag != "domain":
        raise Invalid(f"The XML must be a <domain>; got <{root.tag}>.")
    return root


def _encode(xml: str) -> bytes:
    try:
        return xml.encode()
    except UnicodeEncodeError:
        raise Invalid("The XML cannot contain surrogate characters: they have no UTF-8 encoding.") from None


def _root(data: bytes, *, huge: bool = False) -> etree._Element:
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        huge_tree=huge,
        load_dtd=False,
        remove_comments=True,
    )
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise Invalid(_syntax_sentence(error)) from None


def _syntax_sentence(error: etree.XMLSyntaxError) -> str:
    message = re.sub(r", line \d+, column \d+.*", "", " ".join((error.msg or "no content").split()))
    return f"The XML is not well-formed: line {error.lineno or 1}: {message}."


def _text(root: etree._Element, path: str) -> str | None:
    """Return the text of the first element at a path, joined as libvirt does it; None without text."""
    element = root.find(path)
    return None if element is None else "".join(map(str, element.itertext())).strip() or None


def _attribute(root: etree._Element, path: str, name: str) -> str | None:
    element = root.find(path)
    return None if element is None else element.get(name)


def _name(root: etree._Element) -> str:
    name = _text(root, "name")
    if name is None:
        raise Invalid("The XML requires a <name>.")
    if len(name) > 128 or not re.fullmatch(NAME_PATTERN, name):
        raise Invalid(
            "<name> must be up to 128 letters, digits, '.', '_', '+' and '-', of which the first is a letter or "
            f"digit; got {name[:128]!r}."
        )
    return name


def as_uuid(text: str) -> UUID | None:
    """Return the UUID that a text is, with all of its dashes or without any; else None."""
    match = re.fullmatch(r"[0-9A-Fa-f]{8}(-?)[0-9A-Fa-f]{4}(\1[0-9A-Fa-f]{4}){2}\1[0-9A-Fa-f]{12}", text)
    return UUID(text) if match else None


def _uuid(root: etree._Element) -> UUID:
    text = _text(root, "uuid")
    if text is None:
        raise Invalid("The XML requires a <uuid>.")
    if not re.fullmatch(r"[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}", text):
        raise Invalid(f"<uuid> must look like {UUID(int=0)}; got {text[:128]!r}.")
    return UUID(text)


def _memory(root: etree._Element) -> int:
    """Return the memory in MiB, from any of libvirt's units."""
    text, unit = _text(root, "memory"), (_attribute(root, "memory", "unit") or "KiB").lower()
    if text is None:
        raise Invalid("The XML requires a <memory>.")
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Invalid(f"<memory> must be a number; got {text[:40]!r}.")
    if unit in ("b", "byte", "bytes"):
        factor = 1
    elif match := re.fullmatch(r"([kmgtpe])(b|ib)?", unit):
        factor = (1000 if match[2] == "b" else 1024) ** ("kmgtpe".index(match[1]) + 1)
    else:
        raise Invalid(f"The unit of <memory> must be one of libvirt's, such as KiB, MiB and GiB; got {unit[:40]!r}.")
    return -(-int(text) * factor // _MIB)


def _vcpu(root: etree._Element) -> int:
    text = _text(root, "vcpu") or "1"
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) == 0:
        raise Invalid(f"<vcpu> must be a number from 1 to 99999; got {text[:40]!r}.")
    return int(text)


def _topology(root: etree._Element) -> str | None:
    topology = root.find("cpu/topology")
    if topology is None:
        return None
    return "/".join(topology.get(part, "1") for part in ("sockets", "cores", "threads"))


def _network(interface: etree._Element) -> Network:
    kind, source = interface.get("type"), interface.find("source")
    name = None if source is None or kind is None else source.get("dev" if kind == "direct" else kind)
    mac, model = _attribute(interface, "mac", "address"), _attribute(interface, "model", "type")
    return Network(type=kind, mac=mac, source=name, model=model)


def _disk(disk: etree._Element) -> Disk:
    kind, source = disk.get("type"), disk.find("source")
    key = {"network": "name", "file": "file", "block": "dev"}.get(kind or "")
    name = source.get(key) if source is not None and key is not None else None
    if kind == "network":
        kind = _attribute(disk, "source", "protocol") or kind
    return Disk(type=kind, name=name, dev=_attribute(disk, "target", "dev"), bus=_attribute(disk, "target", "bus"))
