"""A real libvirt accepts the provisioner's domains, and the guest's firmware shows the metadata address."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import libvirt
import pytest

from pvcd_plugins.provisioner.domain import Machine, build
from pvcd_plugins.provisioner.metadata import SERIAL
from pvcd_plugins.vm.domain import Storage, prepare
from tests.contract.hypervisors import Server, server_fixture  # noqa: F401
from tests.unit.provisioner.test_domain import WEB1

QEMU = Path("/usr/bin/qemu-system-x86_64")


@pytest.mark.parametrize("vnc", [False, True])
async def test_libvirt_accepts_and_starts_a_provisioned_domain(server: Server, vnc: bool) -> None:
    machine = replace(WEB1, domain_type="qemu", emulator=str(QEMU), vnc=vnc, serial=not vnc, memory=64)
    command = await asyncio.to_thread(start, server.uri, machine)
    assert any(f"serial={SERIAL}" in word for word in command)


def start(uri: str, machine: Machine) -> list[str]:
    """Define the whole, and start what needs neither Ceph nor a bridge; returns the command that QEMU runs with."""
    connection = libvirt.open(uri)
    try:
        storage = Storage((("127.0.0.1", 3300),), "libvirt", UUID(int=1))
        whole = prepare(build(machine), generation=1, console_log=None, storage=storage)
        connection.defineXMLFlags(whole, libvirt.VIR_DOMAIN_DEFINE_VALIDATE).undefine()
        small = build(replace(machine, disks=(), interfaces=()))
        guest = connection.createXML(small, libvirt.VIR_DOMAIN_START_VALIDATE | libvirt.VIR_DOMAIN_START_AUTODESTROY)
        assert guest.isActive()
        return command_of(str(machine.uuid))
    finally:
        connection.close()


def command_of(uuid: str) -> list[str]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has just ended
            continue
        if uuid in words and words[0].endswith(QEMU.name):
            return words
    raise AssertionError("there is no such guest")
