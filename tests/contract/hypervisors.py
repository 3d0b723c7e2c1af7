"""Benches for the hypervisor's suite: the fake, and a libvirtd with its log daemon that is started once per session."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol
from uuid import UUID, uuid4

import libvirt
import pytest

from pvcd.clock import SystemClock
from pvcd.errors import Failed, Invalid
from pvcd_plugins.sandbox import guest, packages, state
from pvcd_plugins.sandbox.libvirtd import libvirtd, processes, tpm_directory, uri, virtlogd
from pvcd_plugins.sandbox.service import Service
from pvcd_plugins.sandbox.sockets import release
from pvcd_plugins.vm import domain
from pvcd_plugins.vm.hypervisor import Hypervisor, guests
from pvcd_plugins.vm.hypervisor.fake import FakeHypervisor
from pvcd_plugins.vm.hypervisor.libvirt import LibvirtHypervisor
from pvcd_plugins.vm.hypervisor.nonvolatile import NonvolatileState
from pvcd_plugins.vm.schema import mistake_in

GUESTS = Path(__file__).parents[2] / "var" / "cache" / "guest"
"""The directory of the tiny guest's files, which is kept between runs."""


async def until(condition: Callable[[], object], limit: float = 60.0) -> None:
    """Return as soon as a condition holds; fail when it does not within `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"did not come to hold within {limit} s"
        await asyncio.sleep(0.02)


def absent(what: str) -> NoReturn:
    """Skip a test if this machine lacks something, but fail it in CI."""
    if "CI" in os.environ:
        pytest.fail(what)
    pytest.skip(what)


class Server:
    """libvirtd and virtlogd in one directory, so long that its sockets need their short name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.uri = uri(directory)
        self.state = NonvolatileState(directory / "vms", tpm_directory(directory), directory / "console")
        self._services = {"virtlogd": virtlogd(directory), "libvirtd": libvirtd(directory)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def start(self, name: str) -> None:
        """Start one of the two, from this thread, with whose end it would be killed."""
        process = self._processes[name] = self._launch(self._services[name])
        await self._until_ready(process, self._services[name].ready)

    def _launch(self, service: Service) -> subprocess.Popen[bytes]:
        assert service.prepare is not None
        service.prepare()
        environment = {"PATH": packages.PATH, **service.environment}
        with (self.directory / f"{service.name}.out").open("ab") as log:
            return subprocess.Popen(service.argv, env=environment, stdout=log, stderr=log)

    async def _until_ready(self, process: subprocess.Popen[bytes], ready: Callable[[], Awaitable[bool]]) -> None:
        end = time.monotonic() + 30
        while True:
            assert process.poll() is None, f"ended with {process.returncode}"
            try:
                async with asyncio.timeout(5):
                    if await ready():
                        return
            except OSError:
                assert time.monotonic() < end, "was not ready in time"
            await asyncio.sleep(0.02)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one of the two."""
        self._processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """Kill one of the two."""
        self._processes[name].kill()
        self._processes[name].wait(10)

    async def end(self) -> None:
        """Stop both and whatever they started."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait(10)
        await state.end(lambda: processes(self.directory))
        release(self.directory)


class Bench(Protocol):
    """A hypervisor, and what a test does to it from outside."""

    hypervisor: Hypervisor

    def document(self, uuid: UUID, name: str | None = None) -> str:
        """A VM that ignores its power button."""

    async def obedient(self, uuid: UUID) -> str:
        """A VM that powers off when asked to."""

    async def settled(self, uuid: UUID) -> None:
        """Return when a guest that was started listens to its power button."""

    def kill(self, uuid: UUID) -> None:
        """Let a guest die from outside."""

    def hang(self, uuid: UUID) -> None:
        """Let a guest's QEMU answer no more."""

    def spoil(self, uuid: UUID) -> None:
        """Let a guest be one that cannot be read."""

    def interrupt(self) -> None:
        """Let the hypervisor, but no guest, go away."""

    async def resume(self) -> None:
        """Let the hypervisor come back."""

    def need_firmware(self) -> None:
        """Skip a test where there is no UEFI for guests, or no TPM."""

    async def has_secret(self, uuid: UUID) -> bool:
        """Return whether there is a key of this UUID."""


class FakeBench:
    """The fake, which is scripted."""

    def __init__(self, directory: Path) -> None:
        self.fake = FakeHypervisor(SystemClock(), shutdown_seconds=0.05)
        self.hypervisor: Hypervisor = self.fake
        self._directory = directory

    def document(self, uuid: UUID, name: str | None = None) -> str:
        self.fake.ignores_shutdown.add(uuid)
        return guest.boot_sector_domain(name or f"vm-{uuid}", uuid, self._directory / "none.raw", "qemu")

    async def obedient(self, uuid: UUID) -> str:
        return guest.tiny_domain(f"vm-{uuid}", uuid, Path("/vmlinuz"), Path("/initrd.gz"), "qemu")

    async def settled(self, uuid: UUID) -> None:
        pass

    def kill(self, uuid: UUID) -> None:
        self.fake.kill(uuid)

    def hang(self, uuid: UUID) -> None:
        self.fake.hang(uuid)

    def spoil(self, uuid: UUID) -> None:
        self.fake.spoil(uuid)

    def interrupt(self) -> None:
        self.fake.stop()

    async def resume(self) -> None:
        self.fake.start_again()

    def need_firmware(self) -> None:
        pass

    async def has_secret(self, uuid: UUID) -> bool:
        return uuid in self.fake.secrets


class LibvirtBench:
    """A real libvirtd, with guests that QEMU runs without KVM."""

    def __init__(self, server: Server, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self._monkeypatch = monkeypatch
        self.hypervisor: Hypervisor = LibvirtHypervisor(server.uri, server.state)
        self._directory = directory

    def document(self, uuid: UUID, name: str | None = None) -> str:
        image = guest.boot_sector(self._directory / f"{uuid}.raw")
        document = guest.boot_sector_domain(name or f"vm-{uuid}", uuid, image, "qemu")
        assert mistake_in(document) is None
        return document

    async def obedient(self, uuid: UUID) -> str:
        try:
            files = await guest.tiny(GUESTS)
        except Failed as error:
            absent(f"The tiny guest cannot be built: {error.sentence}")
        document = guest.tiny_domain(f"vm-{uuid}", uuid, *files, "qemu")
        assert mistake_in(document) is None
        return domain.prepare(document, generation=1, console_log=str(self.console(uuid)))

    async def settled(self, uuid: UUID) -> None:
        log = self.console(uuid)
        await until(lambda: log.exists() and guest.GREETING in log.read_text(errors="replace"), limit=60)

    def console(self, uuid: UUID) -> Path:
        """Return the path of a guest's console log, if there is one."""
        return self._directory / f"{uuid}.log"

    def kill(self, uuid: UUID) -> None:
        self.signal(uuid, signal.SIGKILL)

    def hang(self, uuid: UUID) -> None:
        self.signal(uuid, signal.SIGSTOP)

    def spoil(self, uuid: UUID) -> None:
        read = guests.generation_of

        def spoiled(xml: str) -> int | None:
            if str(uuid) in xml:
                raise Invalid("The XML is not well-formed: line 1: scripted.")
            return read(xml)

        self._monkeypatch.setattr(guests, "generation_of", spoiled)

    def signal(self, uuid: UUID, number: signal.Signals) -> None:
        """Send a signal to a guest's QEMU."""
        os.kill(int((self.server.directory / "run" / "qemu" / f"vm-{uuid}.pid").read_text()), number)

    def interrupt(self) -> None:
        self.server.kill("libvirtd")

    async def resume(self) -> None:
        await self.server.start("libvirtd")

    def need_firmware(self) -> None:
        for file in ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/bin/swtpm", "/usr/bin/swtpm_setup"):
            if not Path(file).exists():
                absent(f"not installed here: {file}")

    async def has_secret(self, uuid: UUID) -> bool:
        known = await asyncio.to_thread(self._ask, lambda connection: connection.listSecrets())
        return str(uuid) in known

    async def secret(self, uuid: UUID) -> bytes:
        """Return the value of a key, if libvirtd reveals it."""
        return bytes(await asyncio.to_thread(self._ask, lambda link: link.secretLookupByUUID(uuid.bytes).value()))

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        """Return the answer of libvirtd to another client."""
        connection = libvirt.open(self.server.uri)
        try:
            return question(connection)
        finally:
            connection.close()


@pytest.fixture(scope="session", name="server")
def server_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    missing = packages.missing(("virtlogd", "libvirtd"))
    if missing:
        absent(f"not installed here: {', '.join(need.what for need in missing)}")
    if os.geteuid() != 0:
        absent("only root may run a libvirtd for QEMU")
    server = Server(tmp_path_factory.mktemp("libvirt") / ("a-long-name-" * 8))
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(server.start("virtlogd"))
        loop.run_until_complete(server.start("libvirtd"))
        yield server
    finally:
        loop.run_until_complete(server.end())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture(params=["fake", "libvirt"], name="closed_bench")
def closed_bench_fixture(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    if request.param == "fake":
        return FakeBench(tmp_path)
    return LibvirtBench(request.getfixturevalue("server"), tmp_path, monkeypatch)


@pytest.fixture(name="bench")
async def bench_fixture(closed_bench: Bench) -> AsyncIterator[Bench]:
    async for bench in _open(closed_bench):
        yield bench


@pytest.fixture(name="real")
async def real_fixture(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LibvirtBench]:
    made = LibvirtBench(server, tmp_path, monkeypatch)
    async for _ in _open(made):
        yield made


async def _open(bench: Bench) -> AsyncIterator[Bench]:
    await bench.hypervisor.open()
    try:
        yield bench
    finally:
        if bench.hypervisor.connected:
            await asyncio.gather(*map(bench.hypervisor.destroy, await bench.hypervisor.domains()))
        await bench.hypervisor.close()


@pytest.fixture(name="uuid")
def uuid_fixture() -> UUID:
    return uuid4()
