"""Questions and requests to libvirtd, about guests and the node, by functions that block and so run in a thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import libvirt
from lxml import etree

from pvcd import Invalid
from pvcd_plugins.vm.domain import generation_of
from pvcd_plugins.vm.hypervisor import Capabilities, Guest, GuestState
from pvcd_plugins.vm.hypervisor.connection import Link, message

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_RUNNING: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: GuestState.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_CRASHED: GuestState.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF: GuestState.OFF,
}


def domains(link: Link) -> dict[UUID, Guest]:
    """Return all guests."""
    guests = (_unless_gone(_guest, link, domain) for domain in link.connection.listAllDomains())
    found = {guest.uuid: guest for guest in guests if guest is not None}
    for uuid in link.generations.keys() - found.keys():
        link.generations.pop(uuid, None)
    return found


def look(link: Link, uuid: UUID) -> Guest | None:
    """Return one guest, or None if libvirt does not know it."""
    domain = _unless_gone(link.connection.lookupByUUID, uuid.bytes)
    return None if domain is None else _unless_gone(_guest, link, domain)


def _guest(link: Link, domain: Any) -> Guest:
    """Return a guest, by calls for which libvirtd does not ask its QEMU; one that cannot be read runs."""
    uuid, run = UUID(bytes=domain.UUID()), domain.ID()
    state, memory, vcpus, generation, problem = libvirt.VIR_DOMAIN_RUNNING, 0, 0, None, None
    try:
        state, memory, _, vcpus, _ = domain.info()
        known = link.generations.get(uuid)
        if known is None or known[0] != run:
            known = link.generations[uuid] = (run, generation_of(domain.XMLDesc(0)))
        generation = known[1]
    except libvirt.libvirtError as error:
        if _is_gone(error) or not link.connection.isAlive():
            raise
        problem = f"Cannot read the guest: libvirt reports: {message(error)}."
    except Invalid as error:
        problem = f"Cannot read the guest: {error.sentence}"
    if problem is not None and (uuid, run) not in link.unreadable:
        link.unreadable.add((uuid, run))
        log.warning("Guest %s: %s", uuid, problem)
    return Guest(
        uuid=uuid,
        name=domain.name(),
        state=_STATES.get(state, GuestState.RUNNING),
        generation=generation,
        memory=memory // 1024,
        vcpus=vcpus,
        problem=problem,
    )


def set_secret(link: Link, uuid: UUID, usage: str, value: bytes) -> None:
    """Store a Ceph key until libvirtd ends."""
    secret = etree.Element("secret", {"ephemeral": "yes", "private": "yes"})
    etree.SubElement(secret, "uuid").text = str(uuid)
    etree.SubElement(etree.SubElement(secret, "usage", {"type": "ceph"}), "name").text = usage
    link.connection.secretDefineXML(etree.tostring(secret, encoding="unicode")).setValue(value)


def start(link: Link, xml: str) -> None:
    """Start a transient guest from its document."""
    link.connection.createXML(xml, 0)


def ask(link: Link, uuid: UUID) -> None:
    """Return when a guest's QEMU has answered: this is the lightest question that needs no device of the guest."""
    domain = _running(link, uuid)
    if domain is not None:
        _unless_gone(domain.diskErrors)


def shutdown(link: Link, uuid: UUID) -> None:
    """Press a guest's power button."""
    domain = _running(link, uuid)
    if domain is not None:
        _unless_gone(domain.shutdownFlags, libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)


def destroy(link: Link, uuid: UUID) -> None:
    """End a guest, and return when it is gone: also when it was another call that ended it.

    What was started since then is another run, with an ID of its own in libvirt, and stays.
    """
    pause, run = threading.Event(), None
    while domain := _running(link, uuid):
        run = domain.ID() if run is None else run
        if domain.ID() != run:
            return
        _unless_gone(domain.destroy)
        pause.wait(0.05)


def _running(link: Link, uuid: UUID) -> Any:
    """Return the domain if it runs."""
    domain = _unless_gone(link.connection.lookupByUUID, uuid.bytes)
    return domain if domain is not None and _unless_gone(domain.isActive) else None


def capabilities(link: Link) -> Capabilities:
    """Return the kinds of guests of the node's own architecture."""
    root = etree.fromstring(link.connection.getCapabilities())
    arch = root.findtext("host/cpu/arch", "")
    own = [guest.find("arch") for guest in root.findall("guest") if guest.findtext("os_type") == "hvm"]
    guests = [guest for guest in own if guest is not None and guest.get("name") == arch]

    def every(path: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(element.text or "" for guest in guests for element in guest.iterfind(path)))

    types = (domain.get("type", "") for guest in guests for domain in guest.iterfind("domain"))
    return Capabilities(tuple(dict.fromkeys(types)), every(".//emulator"), arch, every(".//machine"))


def _unless_gone(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
    """Return the result of a call about a guest; None if the guest is gone or does not run."""
    try:
        return function(*arguments, **options)
    except libvirt.libvirtError as error:
        if _is_gone(error):
            return None
        raise


def _is_gone(error: libvirt.libvirtError) -> bool:
    return error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
