"""The contract of mappings, on the fake and the real one; and cases that need the real one."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from pvcd.errors import Invalid, Locked, NotFound
from pvcd_plugins.ceph.cluster import InUse
from pvcd_plugins.ceph.mapping import IsMapped, Mapped, Mapping
from pvcd_plugins.ceph.mapping.fake import FakeMapping
from pvcd_plugins.ceph.mapping.fuse import FuseMapping, _daemon
from tests.contract.volumes import CephServer

MIB = 1024 * 1024
POOL = "vms"


class Bench(Protocol):
    """A mapping, and volumes for it."""

    mapping: Mapping

    async def volume(self) -> str: ...
    async def open_elsewhere(self, volume: str) -> None: ...
    def hold(self, volume: str, device: Path) -> None: ...
    def unmap_orphans(self, volume: str) -> None: ...
    def kill(self, volume: str) -> None: ...
    def anew(self) -> Mapping: ...


class FakeBench:
    def __init__(self, folder: Path) -> None:
        self.mapping: Mapping = FakeMapping(folder)

    @property
    def fake(self) -> FakeMapping:
        assert isinstance(self.mapping, FakeMapping)
        return self.mapping

    async def volume(self) -> str:
        name = f"v-{secrets.token_hex(4)}"
        self.fake.volumes.add((POOL, name))
        return name

    async def open_elsewhere(self, volume: str) -> None:
        self.fake.open_elsewhere.add((POOL, volume))

    def hold(self, volume: str, device: Path) -> None:
        self.fake.held.add((POOL, volume))

    def unmap_orphans(self, volume: str) -> None:
        self.fake.held.discard((POOL, volume))

    def kill(self, volume: str) -> None:
        self.fake.kill(POOL, volume)

    def anew(self) -> Mapping:
        return self.mapping


class RealBench:
    """The storage daemon on a real Ceph. What the test leaves behind fails it."""

    def __init__(self, ceph: CephServer, folder: Path) -> None:
        self.ceph, self.state = ceph, folder / "state"
        self.mapping: Mapping = self.anew()
        self._held: dict[str, int] = {}
        self._others: list[FuseMapping] = []
        self._folder = folder

    def anew(self) -> Mapping:
        return FuseMapping(self.state, conf=self.ceph.conf, user=self.ceph.user)

    async def volume(self, size: str = "64M") -> str:
        name = f"v-{secrets.token_hex(4)}"
        await asyncio.to_thread(self.ceph.rbd, "create", "--size", size, f"{POOL}/{name}")
        return name

    async def open_elsewhere(self, volume: str) -> None:
        other = FuseMapping(self._folder / "elsewhere", conf=self.ceph.conf, user=self.ceph.user)
        self._others.append(other)
        await other.map(POOL, volume)

    def hold(self, volume: str, device: Path) -> None:
        self._held[volume] = os.open(device, os.O_RDONLY | os.O_EXCL)

    def unmap_orphans(self, volume: str) -> None:
        os.close(self._held.pop(volume))

    def kill(self, volume: str) -> None:
        pid = self.daemon(volume)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while self.daemon(volume) is not None:
            pass

    def daemon(self, volume: str) -> int | None:
        return _daemon(self.state / POOL / volume)

    async def end(self) -> None:
        for mapping in (self.mapping, *self._others):
            for each in await mapping.mapped():
                await mapping.unmap(each.pool, each.volume)

    def left(self) -> list[str]:
        """Return everything of this bench that still exists."""
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        loops = [file.read_text().strip() for file in Path("/sys/block").glob("loop*/loop/backing_file")]
        arguments = [_arguments(int(name)) for name in filter(str.isdecimal, os.listdir("/proc"))]
        mine = str(self._folder)
        return [
            *(text for text in (*mounts, *loops, *arguments) if mine in text),
            *(str(path) for folder in ("state", "elsewhere") for path in (self._folder / folder).rglob("*")),
        ]


def _arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture
async def real(ceph: CephServer, tmp_path: Path) -> AsyncIterator[RealBench]:
    bench = RealBench(ceph, tmp_path)
    yield bench
    await bench.end()
    assert bench.left() == []


@pytest.fixture(params=["fake", "fuse"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "fake":
        yield FakeBench(tmp_path)
        return
    made = RealBench(request.getfixturevalue("ceph"), tmp_path)
    yield made
    await made.end()
    assert made.left() == []


def write(device: Path, data: bytes) -> None:
    """Write to the beginning of a device, for good."""
    with device.open("r+b") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read(device: Path, count: int) -> bytes:
    with device.open("rb") as file:
        return file.read(count)


async def test_written_data_is_there_when_the_volume_is_mapped_again(bench: Bench) -> None:
    volume = await bench.volume()
    data = secrets.token_bytes(MIB)
    await asyncio.to_thread(write, await bench.mapping.map(POOL, volume), data)
    await bench.mapping.unmap(POOL, volume)
    assert await bench.mapping.mapped() == []
    device = await bench.mapping.map(POOL, volume)
    assert await asyncio.to_thread(read, device, MIB) == data


async def test_a_new_process_knows_the_existing_mappings(bench: Bench) -> None:
    names = sorted([await bench.volume(), await bench.volume()])
    expected = [Mapped(POOL, name, await bench.mapping.map(POOL, name)) for name in names]
    assert len({each.device for each in expected}) == 2
    assert await bench.mapping.mapped() == await bench.anew().mapped() == expected


async def test_a_mapped_volume_is_not_mapped_again(bench: Bench) -> None:
    volume = await bench.volume()
    device = await bench.mapping.map(POOL, volume)
    for mapping in (bench.mapping, bench.anew()):
        with pytest.raises(IsMapped, match=f"already mapped on this node as {device}") as caught:
            await mapping.map(POOL, volume)
        assert caught.value.code == "volume-mapped"
    assert await bench.mapping.mapped() == [Mapped(POOL, volume, device)]


async def test_a_volume_in_use_by_another_client_is_not_mapped(bench: Bench) -> None:
    volume = await bench.volume()
    await bench.open_elsewhere(volume)
    with pytest.raises(InUse, match="has it open") as caught:
        await bench.mapping.map(POOL, volume)
    assert caught.value.code == "volume-in-use"
    assert await bench.mapping.mapped() == []


async def test_a_missing_volume_is_reported_and_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(NotFound, match="no volume 'vms/none'") as caught:
        await bench.mapping.map(POOL, "none")
    assert caught.value.code == "volume-not-found"
    with pytest.raises(NotFound):
        await bench.mapping.map("none", "none")
    assert await bench.mapping.mapped() == []


@pytest.mark.parametrize("name", ["../x", "-p", "a b", "a@b", "a/b", "", "a,file=/etc/passwd"])
async def test_an_invalid_name_is_refused(bench: Bench, name: str) -> None:
    for pool, volume in ((POOL, name), (name, "x")):
        with pytest.raises(Invalid):
            await bench.mapping.map(pool, volume)
        with pytest.raises(Invalid):
            await bench.mapping.unmap(pool, volume)


async def test_unmapping_an_unmapped_volume_is_no_error(bench: Bench) -> None:
    volume = await bench.volume()
    await bench.mapping.unmap(POOL, volume)
    await bench.mapping.map(POOL, volume)
    await bench.mapping.unmap(POOL, volume)
    await bench.mapping.unmap(POOL, volume)
    await bench.mapping.unmap(POOL, "none")
    assert await bench.mapping.clean() == []


async def test_a_device_in_use_is_not_unmapped(bench: Bench) -> None:
    volume = await bench.volume()
    device = await bench.mapping.map(POOL, volume)
    bench.hold(volume, device)
    with pytest.raises(InUse, match=f"its device {device} is mounted or held"):
        await bench.mapping.unmap(POOL, volume)
    assert await bench.mapping.mapped() == [Mapped(POOL, volume, device)]
    bench.unmap_orphans(volume)
    await bench.mapping.unmap(POOL, volume)
    assert await bench.mapping.mapped() == []


async def test_killed_mappings_are_cleaned_up_and_intact_ones_stay(bench: Bench) -> None:
    killed, whole = await bench.volume(), await bench.volume()
    await bench.mapping.map(POOL, killed)
    device = await bench.mapping.map(POOL, whole)
    bench.kill(killed)
    assert Mapped(POOL, killed, None) in await bench.mapping.mapped()
    assert await bench.mapping.clean() == [Mapped(POOL, killed, None)]
    assert await bench.mapping.mapped() == [Mapped(POOL, whole, device)]
    assert await bench.mapping.clean() == []


async def test_a_killed_mapping_is_unmapped_like_a_live_one(bench: Bench) -> None:
    volume = await bench.volume()
    await bench.mapping.map(POOL, volume)
    bench.kill(volume)
    await bench.mapping.unmap(POOL, volume)
    assert await bench.mapping.mapped() == []


async def test_a_killed_mapping_is_mapped_again_with_the_written_data(bench: Bench) -> None:
    volume = await bench.volume()
    device = await bench.mapping.map(POOL, volume)
    data = secrets.token_bytes(MIB)
    await asyncio.to_thread(write, device, data)
    bench.kill(volume)
    device = await bench.mapping.map(POOL, volume)
    assert await asyncio.to_thread(read, device, MIB) == data
    await asyncio.to_thread(write, device, bytes(MIB))


async def test_a_discard_reaches_ceph(real: RealBench) -> None:
    volume = await real.volume()
    device = await real.mapping.map(POOL, volume)
    await asyncio.to_thread(write, device, secrets.token_bytes(16 * MIB))
    assert real.ceph.used(POOL, volume) == 16 * MIB
    await asyncio.to_thread(subprocess.run, ["blkdiscard", str(device)], check=True)
    assert real.ceph.used(POOL, volume) == 0


async def test_a_mounted_file_system_is_trimmed_and_blocks_unmapping(real: RealBench, tmp_path: Path) -> None:
    volume, folder = await real.volume("128M"), tmp_path / "mnt"
    device = await real.mapping.map(POOL, volume)
    folder.mkdir()
    await asyncio.to_thread(subprocess.run, ["mkfs.ext4", "-q", "-b", "4096", str(device)], check=True)
    with mounted(device, folder):
        await asyncio.to_thread(write_file, folder / "data", 64 * MIB)
        full = real.ceph.used(POOL, volume)
        with pytest.raises(InUse):
            await real.mapping.unmap(POOL, volume)
        (folder / "data").unlink()
        await asyncio.to_thread(subprocess.run, ["sync", "-f", str(folder)], check=True)
        await asyncio.to_thread(subprocess.run, ["fstrim", str(folder)], check=True)
        assert real.ceph.used(POOL, volume) <= full - 48 * MIB
    await real.mapping.unmap(POOL, volume)


async def test_a_file_system_of_a_killed_mapping_is_unmounted_with_it(real: RealBench, tmp_path: Path) -> None:
    volume, folder = await real.volume("128M"), tmp_path / "a folder"
    device = await real.mapping.map(POOL, volume)
    folder.mkdir()
    await asyncio.to_thread(subprocess.run, ["mkfs.ext4", "-q", "-b", "4096", str(device)], check=True)
    with mounted(device, folder):
        real.kill(volume)
        assert await real.anew().clean() == [Mapped(POOL, volume, None)]
        assert real.left() == []


async def test_a_daemon_without_a_loop_device_is_removed_too(real: RealBench) -> None:
    volume = await real.volume()
    device = await real.mapping.map(POOL, volume)
    await asyncio.to_thread(subprocess.run, ["losetup", "-d", str(device)], check=True)
    assert await real.mapping.clean() == [Mapped(POOL, volume, None)]
    assert real.left() == []


async def test_one_of_two_concurrent_mappings_of_a_volume_succeeds(real: RealBench) -> None:
    volume = await real.volume()
    both = (real.mapping.map(POOL, volume), real.anew().map(POOL, volume))
    results = await asyncio.gather(*both, return_exceptions=True)
    assert [type(result) for result in results if isinstance(result, Exception)] == [Locked]
    assert len(await real.mapping.mapped()) == 1


async def test_a_canceled_mapping_leaves_nothing(real: RealBench) -> None:
    for seconds in (0.01, 0.03, 0.05, 0.07):
        volume = await real.volume()
        mapping = asyncio.create_task(real.mapping.map(POOL, volume))
        await asyncio.wait([mapping], timeout=seconds)
        mapping.cancel()
        await asyncio.wait([mapping])
        await real.mapping.unmap(POOL, volume)
        assert real.left() == []


async def test_the_key_is_on_no_command_line(real: RealBench) -> None:
    volume = await real.volume()
    await real.mapping.map(POOL, volume)
    pid = real.daemon(volume)
    assert pid is not None
    assert real.ceph.key(real.ceph.user) not in _arguments(pid)


async def test_the_daemon_is_orphaned_and_in_its_own_session(real: RealBench) -> None:
    volume = await real.volume()
    await real.mapping.map(POOL, volume)
    pid = real.daemon(volume)
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)
    assert f"\nPPid:\t{os.getpid()}\n" not in status(pid)


class mounted:
    """Mount a file system during the block; it may be unmounted before."""

    def __init__(self, device: Path, folder: Path) -> None:
        self._device, self._folder = device, folder

    def __enter__(self) -> None:
        subprocess.run(["mount", str(self._device), str(self._folder)], check=True)
        assert os.path.ismount(self._folder)

    def __exit__(self, *_: object) -> None:
        if os.path.ismount(self._folder):
            subprocess.run(["umount", str(self._folder)], check=True)


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def write_file(path: Path, size: int) -> None:
    path.touch()
    write(path, secrets.token_bytes(size))
