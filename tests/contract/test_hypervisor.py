"""The contract of the hypervisor, on the fake and on libvirtd; and cases that need a real libvirtd."""

import asyncio
import base64
import re
import signal
import threading
import time
from pathlib import Path
from uuid import UUID, uuid4

import libvirt
import pytest
from hypervisors import (  # noqa: F401
    Bench,
    LibvirtBench,
    Server,
    bench_fixture,
    closed_bench_fixture,
    real_fixture,
    server_fixture,
    until,
    uuid_fixture,
)

from pvcd_plugins.sandbox.libvirtd import CONSOLE_BYTES
from pvcd_plugins.vm.console import read_console
from pvcd_plugins.vm.domain import prepare
from pvcd_plugins.vm.hypervisor import Guest, GuestSilent, GuestState, HypervisorError, HypervisorUnavailable
from pvcd_plugins.vm.hypervisor.libvirt import LibvirtHypervisor
from pvcd_plugins.vm.hypervisor.nonvolatile import NonvolatileState

OVMF = "/usr/share/OVMF"
SILENCE = re.compile(r"Cannot control the guest: its QEMU has not answered since \d{4}-\d\d-\d\dT[\d:]{8}Z\.")


def marked(bench: Bench, uuid: UUID, generation: int = 7) -> str:
    return prepare(bench.document(uuid), generation=generation, console_log=None)


async def test_a_started_guest_is_listed_as_its_document_says(bench: Bench, uuid: UUID) -> None:
    await bench.hypervisor.start(marked(bench, uuid))
    expected = Guest(uuid, f"vm-{uuid}", GuestState.RUNNING, generation=7, memory=16, vcpus=1)
    assert await bench.hypervisor.look(uuid) == expected
    assert await bench.hypervisor.domains() == {uuid: expected}


async def test_a_guest_that_was_never_started_is_not_listed(bench: Bench, uuid: UUID) -> None:
    assert await bench.hypervisor.look(uuid) is None
    assert await bench.hypervisor.domains() == {}


async def test_the_generation_is_that_of_the_last_start(bench: Bench, uuid: UUID) -> None:
    for generation in (7, 8):
        await bench.hypervisor.start(marked(bench, uuid, generation))
        guest = await bench.hypervisor.look(uuid)
        assert guest is not None and guest.generation == generation
        await bench.hypervisor.destroy(uuid)


async def test_a_guest_that_another_program_started_has_no_generation(bench: Bench, uuid: UUID) -> None:
    await bench.hypervisor.start(bench.document(uuid))
    guest = await bench.hypervisor.look(uuid)
    assert guest is not None and guest.generation is None


async def test_a_running_guest_is_not_started_again(bench: Bench, uuid: UUID) -> None:
    await bench.hypervisor.start(marked(bench, uuid, generation=7))
    with pytest.raises(HypervisorError, match=f"domain 'vm-{uuid}' is already active") as caught:
        await bench.hypervisor.start(marked(bench, uuid, generation=8))
    assert caught.value.code == "hypervisor-failed"
    guest = await bench.hypervisor.look(uuid)
    assert guest is not None and guest.generation == 7


async def test_a_name_is_not_used_twice(bench: Bench, uuid: UUID) -> None:
    other = uuid4()
    await bench.hypervisor.start(marked(bench, uuid))
    with pytest.raises(HypervisorError, match="already exists"):
        await bench.hypervisor.start(bench.document(other, name=f"vm-{uuid}"))
    assert await bench.hypervisor.look(other) is None


async def test_a_destroyed_guest_is_gone_when_the_call_returns(bench: Bench, uuid: UUID) -> None:
    await bench.hypervisor.start(marked(bench, uuid))
    await bench.hypervisor.destroy(uuid)
    assert await bench.hypervisor.look(uuid) is None
    assert await bench.hypervisor.domains() == {}


async def test_shutting_down_or_destroying_a_missing_guest_is_no_error(bench: Bench, uuid: UUID) -> None:
    await bench.hypervisor.shutdown(uuid)
    await bench.hypervisor.destroy(uuid)


async def test_a_guest_is_destroyed_twice_at_once_without_an_error(bench: Bench, uuid: UUID) -> None:
    await bench.hypervisor.start(marked(bench, uuid))
    await asyncio.gather(bench.hypervisor.destroy(uuid), bench.hypervisor.destroy(uuid))
    assert await bench.hypervisor.look(uuid) is None


async def test_changes_are_notified_in_the_event_loop(bench: Bench, uuid: UUID) -> None:
    told: list[tuple[UUID | None, int]] = []
    bench.hypervisor.listen(lambda changed: told.append((changed, threading.get_ident())))
    here = threading.get_ident()
    await bench.hypervisor.start(marked(bench, uuid))
    await until(lambda: (uuid, here) in told)
    told.clear()
    await bench.hypervisor.destroy(uuid)
    await until(lambda: (uuid, here) in told)
    assert {thread for _, thread in told} == {here}


async def test_a_bad_document_is_refused_with_the_error_of_libvirt(bench: Bench) -> None:
    with pytest.raises(HypervisorError, match=r"^Cannot start the guest: libvirt reports: .+\.$"):
        await bench.hypervisor.start("<domain type='qemu'><name>a</name>")
    assert await bench.hypervisor.domains() == {}


def with_volume(document: str, secret: UUID) -> str:
    """Return the document with one more disk, on a Ceph that is not contacted before the key is set."""
    auth = f"<auth username='libvirt'><secret type='ceph' uuid='{secret}'/></auth>"
    source = f"<source protocol='rbd' name='vms/a'><host name='127.0.0.1' port='1'/>{auth}</source>"
    disk = f"<disk type='network' device='disk'>{source}<target dev='vdb' bus='virtio'/></disk>"
    return document.replace("</devices>", f"{disk}</devices>")


async def test_a_guest_is_not_started_with_a_key_that_was_not_set(bench: Bench, uuid: UUID) -> None:
    secret = uuid4()
    await bench.hypervisor.set_secret(uuid4(), f"another of {uuid}", b"key")
    with pytest.raises(HypervisorError, match=f"no secret with matching uuid '{secret}'"):
        await bench.hypervisor.start(with_volume(marked(bench, uuid), secret))
    assert await bench.hypervisor.look(uuid) is None


async def test_a_key_is_set_again_with_another_value(bench: Bench, uuid: UUID) -> None:
    for value in (b"key", b"other key"):
        await bench.hypervisor.set_secret(uuid, f"client of {uuid}", value)
    assert await bench.has_secret(uuid)


async def test_a_key_is_forgotten_with_the_hypervisor_and_set_again(bench: Bench, uuid: UUID) -> None:
    await bench.hypervisor.set_secret(uuid, f"client of {uuid}", b"key")
    bench.interrupt()
    await until(lambda: not bench.hypervisor.connected)
    await bench.resume()
    await until(lambda: bench.hypervisor.connected)
    assert not await bench.has_secret(uuid)
    await bench.hypervisor.set_secret(uuid, f"client of {uuid}", b"key")
    assert await bench.has_secret(uuid)


async def test_a_key_cannot_be_read_back_and_is_in_no_file(real: LibvirtBench, uuid: UUID) -> None:
    value = b"a-key-that-is-not-found-anywhere"
    await real.hypervisor.set_secret(uuid, f"client of {uuid}", value)
    with pytest.raises(libvirt.libvirtError, match="private"):
        await real.secret(uuid)
    files = [file for file in real.server.directory.rglob("*") if file.is_file() and not file.is_symlink()]
    assert files
    assert not [file for file in files if value in file.read_bytes() or base64.b64encode(value) in file.read_bytes()]


async def test_the_capabilities_name_domain_types_and_emulators(bench: Bench) -> None:
    capabilities = await bench.hypervisor.capabilities()
    assert capabilities.arch == "x86_64"
    assert "qemu" in capabilities.domain_types
    assert "/usr/bin/qemu-system-x86_64" in capabilities.emulators
    assert "pc" in capabilities.machines


async def test_a_guest_that_reacts_to_its_power_button_shuts_down(bench: Bench, uuid: UUID) -> None:
    told: list[UUID | None] = []
    bench.hypervisor.listen(told.append)
    await bench.hypervisor.start(await bench.obedient(uuid))
    await until(lambda: uuid in told)
    await bench.settled(uuid)
    told.clear()
    await bench.hypervisor.shutdown(uuid)
    assert await bench.hypervisor.look(uuid) is not None  # it was only asked to
    await until(lambda: uuid in told, limit=30)
    deadline = time.monotonic() + 10
    while await bench.hypervisor.look(uuid) is not None:
        assert time.monotonic() < deadline


async def test_a_guest_that_ignores_its_power_button_keeps_running(bench: Bench, uuid: UUID) -> None:
    await bench.hypervisor.start(marked(bench, uuid))
    await bench.hypervisor.shutdown(uuid)
    await bench.hypervisor.shutdown(uuid)
    guest = await bench.hypervisor.look(uuid)
    assert guest is not None and guest.state is GuestState.RUNNING


async def test_the_death_of_a_guest_is_notified(bench: Bench, uuid: UUID) -> None:
    told: list[UUID | None] = []
    bench.hypervisor.listen(told.append)
    await bench.hypervisor.start(marked(bench, uuid))
    await until(lambda: uuid in told)
    told.clear()
    bench.kill(uuid)
    await until(lambda: uuid in told)
    assert await bench.hypervisor.look(uuid) is None


async def test_guests_survive_a_restart_of_the_hypervisor(bench: Bench, uuid: UUID) -> None:
    told: list[UUID | None] = []
    await bench.hypervisor.start(marked(bench, uuid))
    await bench.hypervisor.look(uuid)
    bench.hypervisor.listen(told.append)
    bench.interrupt()
    try:
        await until(lambda: not bench.hypervisor.connected)
        await until(lambda: None in told)
        with pytest.raises(HypervisorUnavailable, match="no connection") as caught:
            await bench.hypervisor.domains()
        assert caught.value.code == "libvirt-unavailable"
        told.clear()
    finally:
        await bench.resume()
    await until(lambda: None in told)
    assert bench.hypervisor.connected
    guest = await bench.hypervisor.look(uuid)
    assert guest is not None and guest.generation == 7 and guest.state is GuestState.RUNNING


async def test_six_guests_that_hang_delay_no_other(bench: Bench, uuid: UUID) -> None:
    hung = [uuid4() for _ in range(6)]
    for each in hung:
        await bench.hypervisor.start(marked(bench, each))
        bench.hang(each)
    refused = await asyncio.gather(*map(bench.hypervisor.shutdown, hung), return_exceptions=True)
    assert [type(each) for each in refused] == [GuestSilent] * 6
    async with asyncio.timeout(9):  # one that waits for a hung guest takes longer
        await bench.hypervisor.start(marked(bench, uuid))
        await bench.hypervisor.shutdown(uuid)
        guests = await bench.hypervisor.domains()
    assert set(guests) == {uuid, *hung}
    for each in hung:
        guest = await bench.hypervisor.look(each)
        assert guest is not None and guest.state is GuestState.RUNNING and guest.generation == 7
        assert SILENCE.fullmatch(guest.problem or "")
    guest = await bench.hypervisor.look(uuid)
    assert guest is not None and guest.problem is None


async def test_guests_that_hang_are_destroyed_beside_the_start_of_another(bench: Bench, uuid: UUID) -> None:
    hung = [uuid4() for _ in range(6)]
    for each in hung:
        await bench.hypervisor.start(marked(bench, each))
        bench.hang(each)
    async with asyncio.timeout(10):  # libvirtd alone takes longer, and starts no guest meanwhile
        await asyncio.gather(*map(bench.hypervisor.destroy, hung), bench.hypervisor.start(marked(bench, uuid)))
    assert set(await bench.hypervisor.domains()) == {uuid}


async def test_a_request_to_a_guest_that_hangs_is_refused_at_once(bench: Bench, uuid: UUID) -> None:
    await bench.hypervisor.start(marked(bench, uuid))
    bench.hang(uuid)
    with pytest.raises(GuestSilent):
        await bench.hypervisor.shutdown(uuid)
    async with asyncio.timeout(1):
        with pytest.raises(GuestSilent, match=r"^Cannot shut down the guest: its QEMU has not answered") as caught:
            await bench.hypervisor.shutdown(uuid)
    assert caught.value.code == "guest-silent"


async def test_a_guest_that_begins_to_hang_is_found_and_notified(
    real: LibvirtBench, uuid: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvcd_plugins.vm.hypervisor.calls.PROBE_SECONDS", 0.0)
    told: list[UUID | None] = []
    real.hypervisor.listen(told.append)
    await real.hypervisor.start(marked(real, uuid))
    real.hang(uuid)
    await until(lambda: uuid in told)
    told.clear()
    await real.hypervisor.look(uuid)
    await until(lambda: uuid in told)
    guest = await real.hypervisor.look(uuid)
    assert guest is not None and SILENCE.fullmatch(guest.problem or "")
    told.clear()
    real.signal(uuid, signal.SIGCONT)
    await until(lambda: uuid in told)
    guest = await real.hypervisor.look(uuid)
    assert guest is not None and guest.problem is None


async def test_a_guest_that_cannot_be_read_runs_and_hides_no_other(bench: Bench, uuid: UUID) -> None:
    other = uuid4()
    for each in (uuid, other):
        await bench.hypervisor.start(marked(bench, each))
    bench.spoil(uuid)
    guests = await bench.hypervisor.domains()
    assert guests[other].generation == 7 and guests[other].problem is None
    assert guests[uuid].state is GuestState.RUNNING and guests[uuid].generation is None
    assert guests[uuid].problem == "Cannot read the guest: The XML is not well-formed: line 1: scripted."
    assert await bench.hypervisor.look(uuid) == guests[uuid]
    await bench.hypervisor.destroy(uuid)
    assert set(await bench.hypervisor.domains()) == {other}


async def test_a_guest_whose_document_grows_in_libvirt_can_be_stopped(bench: Bench, uuid: UUID) -> None:
    description = "'" * 44_000  # six times as long once libvirt has escaped it
    document = marked(bench, uuid).replace("<devices>", f"<description>{description}</description><devices>", 1)
    await bench.hypervisor.start(document)
    guests = await bench.hypervisor.domains()
    assert guests[uuid].state is GuestState.RUNNING
    assert (await bench.hypervisor.look(uuid)) == guests[uuid]
    await bench.hypervisor.destroy(uuid)
    assert await bench.hypervisor.domains() == {}


def remembering(document: str) -> str:
    """Return the document with UEFI and a TPM."""
    loader = f"<loader readonly='yes' type='pflash'>{OVMF}/OVMF_CODE_4M.fd</loader>"
    nvram = f"<nvram template='{OVMF}/OVMF_VARS_4M.fd'/>"
    uefi = f"<os><type arch='x86_64' machine='q35'>hvm</type>{loader}{nvram}</os>"
    tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    return re.sub("<os>.*</os>", uefi, document, flags=re.DOTALL).replace("</devices>", f"{tpm}</devices>")


async def test_a_guest_remembers_until_it_is_forgotten(bench: Bench, uuid: UUID) -> None:
    other = uuid4()
    bench.need_firmware()
    for generation in (1, 2):
        await bench.hypervisor.start(remembering(marked(bench, uuid, generation)))
        await bench.hypervisor.destroy(uuid)
    await bench.hypervisor.start(marked(bench, other))
    assert await bench.hypervisor.kept() == {uuid}
    await bench.hypervisor.forget(other)
    assert await bench.hypervisor.kept() == {uuid}
    for _ in range(2):
        await bench.hypervisor.forget(uuid)
        assert await bench.hypervisor.kept() == set()


async def test_uefi_variables_and_tpm_state_are_those_of_the_last_run(real: LibvirtBench, uuid: UUID) -> None:
    real.need_firmware()
    state = real.server.state
    variables, tpm = state.directory / str(uuid) / "uefi-variables.fd", state.tpm_directory / str(uuid)
    others = state.tpm_directory / str(uuid4())
    others.mkdir(parents=True)
    await real.hypervisor.start(remembering(marked(real, uuid)))
    await real.hypervisor.destroy(uuid)
    (tpm / "tpm2" / "of the first run").touch()
    first = variables.stat().st_ino
    await real.hypervisor.start(remembering(marked(real, uuid)))
    await real.hypervisor.destroy(uuid)
    assert variables.stat().st_ino == first and (tpm / "tpm2" / "of the first run").exists()
    other = uuid4()
    namesake = prepare(real.document(other, f"vm-{uuid}"), generation=1, console_log=None)
    await real.hypervisor.start(remembering(namesake))
    await real.hypervisor.destroy(other)
    assert (state.directory / str(other) / "uefi-variables.fd").stat().st_ino != first
    for each in (uuid, other):
        await real.hypervisor.forget(each)
    assert not list(state.directory.iterdir())
    assert list(state.tpm_directory.iterdir()) == [others]  # those of guests that are not ours stay


async def test_no_request_is_sent_after_close(bench: Bench) -> None:
    await bench.hypervisor.close()
    assert not bench.hypervisor.connected
    with pytest.raises(HypervisorUnavailable):
        await bench.hypervisor.domains()


async def test_it_opens_without_a_libvirtd_and_says_so(tmp_path: Path) -> None:
    hypervisor = LibvirtHypervisor(
        f"qemu+unix:///system?socket={tmp_path}/none", NonvolatileState(tmp_path, tmp_path, tmp_path)
    )
    await hypervisor.open()
    try:
        assert not hypervisor.connected
        with pytest.raises(HypervisorUnavailable):
            await hypervisor.start("<domain/>")
    finally:
        await hypervisor.close()


async def test_a_silent_libvirtd_is_noticed_within_the_deadline(server: Server, uuid: UUID) -> None:
    hypervisor = LibvirtHypervisor(server.uri, server.state, deadline=1.0)
    late = LibvirtHypervisor(server.uri, server.state, deadline=1.0)
    await hypervisor.open()
    server.signal("libvirtd", signal.SIGSTOP)
    try:
        with pytest.raises(HypervisorUnavailable, match="within 1 s"):
            await hypervisor.look(uuid)
        await late.open()
        assert not late.connected
    finally:
        server.signal("libvirtd", signal.SIGCONT)
    try:
        assert await hypervisor.look(uuid) is None
        await until(lambda: late.connected)
    finally:
        await hypervisor.close()
        await late.close()


async def test_a_console_is_logged_and_read(real: LibvirtBench, uuid: UUID) -> None:
    log = real.console(uuid)
    await real.hypervisor.start(prepare(real.document(uuid), generation=1, console_log=str(log)))
    await until(lambda: "pvcd boot sector" in read_console(log, 10))


async def test_a_full_console_log_is_rotated(real: LibvirtBench, uuid: UUID) -> None:
    log = real.console(uuid)
    log.write_bytes(b"old line\n" * (CONSOLE_BYTES // 9))
    await real.hypervisor.start(prepare(real.document(uuid), generation=1, console_log=str(log)))
    await until(Path(f"{log}.0").exists, limit=30)
    await until(lambda: read_console(log, 100_000)[-1] == "tick", limit=30)
    assert log.stat().st_size < 1024
    assert "old line" in read_console(log, 100_000)


async def test_a_killed_virtlogd_harms_no_guest_and_logs_the_next_one(real: LibvirtBench, uuid: UUID) -> None:
    other = uuid4()
    await real.hypervisor.start(prepare(real.document(uuid), generation=1, console_log=str(real.console(uuid))))
    await until(lambda: "pvcd boot sector" in read_console(real.console(uuid), 10))
    real.server.kill("virtlogd")
    await real.server.start("virtlogd")
    log = real.console(other)
    await real.hypervisor.start(prepare(real.document(other), generation=1, console_log=str(log)))
    # By then the first guest, too, has tried to write once more.
    await until(lambda: "tick" in read_console(log, 10), limit=30)
    guest = await real.hypervisor.look(uuid)
    assert guest is not None and guest.state is GuestState.RUNNING
