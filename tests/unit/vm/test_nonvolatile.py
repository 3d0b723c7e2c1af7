"""What a VM remembers when it is off is kept by its UUID, and goes with the VM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from lxml import etree

from pvcd import StoreUnavailable
from pvcd_plugins.vm.components import forget_removed
from pvcd_plugins.vm.hypervisor.nonvolatile import NonvolatileState, kept_at
from tests.unit.vm.conftest import domain_xml, uuid_of
from tests.unit.vm.storage import StorageCluster

UEFI = "<os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type></os>"
TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'{}/></tpm>"


def with_uefi(name: str, os: str = UEFI) -> str:
    return domain_xml(name).replace("<os><type arch='x86_64' machine='pc'>hvm</type></os>", os)


def with_tpm(name: str, persistent: str = "") -> str:
    return domain_xml(name).replace("</devices>", f"{TPM.format(persistent)}</devices>")


def values(xml: str, path: str) -> list[str]:
    kept = kept_at(xml, Path("/state/variables"))
    return [] if kept is None else [str(value) for value in etree.fromstring(kept).xpath(path)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "os",
    [
        "<os firmware='efi'/>",
        "<os firmware='efi'><loader secure='yes'/></os>",
        "<os><loader type='pflash'>/a</loader></os>",
        "<os><loader type='pflash'>/a</loader><nvram template='/b'/></os>",
        "<os firmware='efi'><nvram type='file'/></os>",
        "<os firmware='efi'><nvram type='file'><source/></nvram></os>",
        "<os firmware='efi'><nvram><source file='/own'/></nvram></os>",
    ],
)
def test_uefi_variables_are_in_the_file_of_the_guest(os: str) -> None:
    assert values(with_uefi("web1", os), "os/nvram/text()") == ["/state/variables"]
    assert values(with_uefi("web1", os), "os/nvram/@type | os/nvram/source") == []


@pytest.mark.parametrize(
    "os",
    [
        "<os><loader type='pflash'>/a</loader><nvram>/own</nvram></os>",
        "<os firmware='efi'><nvram type='file'><source file='/own'/></nvram></os>",
    ],
)
def test_a_file_that_the_document_names_is_used(os: str) -> None:
    assert values(with_uefi("web1", os), "os/nvram/text() | os/nvram/source/@file") == ["/own"]


@pytest.mark.parametrize(
    "os",
    [
        "<os/>",
        "<os firmware='bios'/>",
        "<os><loader type='rom'>/a</loader></os>",
        "<os firmware='efi'><loader stateless='yes'/></os>",
    ],
)
def test_a_guest_without_state_is_left_as_it_is(os: str) -> None:
    assert kept_at(with_uefi("web1", os), Path("/state/variables")) is None


def test_the_state_of_a_tpm_persists_unless_the_document_says_otherwise() -> None:
    path = "devices/tpm/backend/@persistent_state"
    assert values(with_tpm("web1"), path) == ["yes"]
    assert values(with_tpm("web1", " persistent_state='no'"), path) == ["no"]


def test_only_the_state_of_our_guests_is_removed(tmp_path: Path) -> None:
    state, ours, others = _state(tmp_path), uuid4(), uuid4()
    for uuid in (ours, others):
        (tmp_path / "swtpm" / str(uuid) / "tpm2").mkdir(parents=True)
    assert state.kept() == set()
    state.keep(ours, with_tpm("web1"))
    assert state.kept() == {ours}
    for uuid in (ours, others, ours):
        state.forget(uuid)
    assert state.kept() == set()
    assert [path.name for path in (tmp_path / "swtpm").iterdir()] == [str(others)]


def test_logs_of_consoles_are_removed_and_those_of_others_stay(tmp_path: Path) -> None:
    state, ours = _state(tmp_path), uuid4()
    console = state.console_directory
    console.mkdir()
    others = ["web1.log", f"{uuid4()}.log.gz", f"{uuid4()}", f"{ours.hex}.log", "x"]
    for name in (f"{ours}.log", f"{ours}.log.0", *others):
        (console / name).touch()
    assert state.kept() == {ours}
    for _ in range(2):
        state.forget(ours)
    assert state.kept() == set()
    assert sorted(path.name for path in console.iterdir()) == sorted(others)


def _state(directory: Path) -> NonvolatileState:
    return NonvolatileState(directory / "vms", directory / "swtpm", directory / "console")


@pytest.fixture
async def cluster() -> AsyncIterator[StorageCluster]:
    made = StorageCluster()
    async with made.simulated:
        await made.simulated.advance(2)
        yield made


async def test_state_is_kept_while_the_vm_exists_and_goes_with_it(cluster: StorageCluster) -> None:
    [hypervisor] = cluster.hypervisors.values()
    for name in ("web1", "web2"):
        await cluster.ask("POST", "/vm", xml=with_uefi(name))
        await cluster.start(name)
        await cluster.stop(name)
    assert await hypervisor.kept() == {uuid_of("web1"), uuid_of("web2")}
    await cluster.while_time_passes("DELETE", "/vm/web1")
    await cluster.simulated.advance(1)
    assert await hypervisor.kept() == {uuid_of("web2")}


async def test_state_of_a_vm_that_went_while_the_agent_was_away_is_removed(cluster: StorageCluster) -> None:
    [hypervisor] = cluster.hypervisors.values()
    await cluster.ask("POST", "/vm", xml=with_uefi("web1"))
    await cluster.start("web1")
    await hypervisor.start(with_uefi("gone"))
    await hypervisor.destroy(uuid_of("gone"))
    await cluster.simulated.kill_agent("hv1")
    await cluster.simulated.start_agent("hv1")
    await cluster.simulated.advance(1)
    assert await hypervisor.kept() == {uuid_of("web1")}


async def test_nothing_is_removed_if_the_store_has_no_vm_at_all(cluster: StorageCluster) -> None:
    [hypervisor] = cluster.hypervisors.values()
    await hypervisor.start(with_uefi("web1"))
    await hypervisor.destroy(uuid_of("web1"))
    await cluster.simulated.kill_agent("hv1")
    await cluster.simulated.start_agent("hv1")
    await cluster.simulated.advance(1)
    assert await hypervisor.kept() == {uuid_of("web1")}


async def test_nothing_is_removed_while_the_store_does_not_answer(cluster: StorageCluster) -> None:
    [hypervisor] = cluster.hypervisors.values()
    await hypervisor.start(with_uefi("gone"))

    class Away:
        async def read(self, *arguments: object) -> None:
            raise StoreUnavailable("Cannot read: there is no connection.")

    class AwayContext:
        store = Away()

    await forget_removed(AwayContext(), hypervisor)  # type: ignore[arg-type]
    assert await hypervisor.kept() == {uuid_of("gone")}
