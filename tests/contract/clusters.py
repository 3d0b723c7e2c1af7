"""Benches for the suite of the door to Ceph: the fake, and the real one that all suites here share."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from pvcd.programs.runner import run
from pvcd_plugins.ceph.cluster import Cluster, OsdHost
from pvcd_plugins.ceph.cluster.cli import CliCluster
from pvcd_plugins.ceph.cluster.fake import FakeCluster, FakeOsdHost
from pvcd_plugins.ceph.cluster.osd import CliOsdHost
from pvcd_plugins.sandbox import ceph, state
from pvcd_plugins.sandbox.cluster import CEPH
from tests.contract.volumes import CephServer

POOL = "vms"
NODE = "node-of-tests"
LIMIT = 60.0
MiB = 1024**2
GiB = 1024**3

# Has a volume open, and a lock on it, until its input ends; writes once more when it reads a line.
CLIENT = """
import rados, rbd, sys
conf, pool, volume = sys.argv[1:]
with rados.Rados(conffile=conf) as cluster, cluster.open_ioctx(pool) as io, rbd.Image(io, volume) as image:
    image.write(b"opened", 0)
    print("open", flush=True)
    for line in sys.stdin:
        try:
            image.write(b"again!", 0)
            image.flush()
            print("written", flush=True)
        except (rbd.Error, OSError) as error:
            print("refused", flush=True)
"""


class Bench(Protocol):
    """A Ceph with the pool `vms` and one OSD, a node, and what a test does from outside."""

    cluster: Cluster
    impatient: Cluster
    """The same, but with a deadline of two seconds."""
    host: OsdHost

    async def write(self, volume: str, data: bytes) -> None:
        """Write at the beginning of a volume."""

    async def read(self, volume: str) -> bytes:
        """All of a volume."""

    async def open(self, volume: str) -> None:
        """Let a client open a volume and write to it."""

    async def can_write(self, volume: str) -> bool:
        """Return whether the client that has it open can write once more."""

    async def close(self, volume: str) -> None:
        """Let that client close it."""

    async def interrupt_clone(self, source: str, volume: str) -> None:
        """Leave a clone that was not finished."""

    async def device(self) -> str:
        """One more unused device of the node."""

    def stop(self) -> None:
        """Let Ceph answer no more."""

    def resume(self) -> None:
        """Let Ceph answer again."""


class FakeBench:
    """The fake, which is scripted."""

    def __init__(self) -> None:
        self.fake = FakeCluster()
        self.cluster: Cluster = self.fake
        self.impatient: Cluster = self.fake
        self.devices = [f"/dev/fake{number}" for number in range(3)]
        self.host: OsdHost = FakeOsdHost(self.fake, NODE, self.devices)
        self.fake.add_osd("pvchv1")

    async def write(self, volume: str, data: bytes) -> None:
        self.fake.write(POOL, volume, data)

    async def read(self, volume: str) -> bytes:
        return self.fake.read(POOL, volume)

    async def open(self, volume: str) -> None:
        self.fake.open_volume(POOL, volume)

    async def can_write(self, volume: str) -> bool:
        return bool(await self.fake.locks(POOL, volume))

    async def close(self, volume: str) -> None:
        self.fake.close_volume(POOL, volume)

    async def interrupt_clone(self, source: str, volume: str) -> None:
        await self.fake.clone_volume(POOL, source, volume)
        self.fake.interrupt_clone(POOL, volume, source)

    async def device(self) -> str:
        return self.devices.pop()

    def stop(self) -> None:
        self.fake.stopped = True

    def resume(self) -> None:
        self.fake.stopped = False


class CliBench:
    """The sandbox's Ceph, through Ceph's own programs."""

    def __init__(self, directory: Path, scratch: Path) -> None:
        self.directory = directory
        self.conf = str(ceph.conf(directory / CEPH))
        self.cluster: Cluster = CliCluster(self.conf, deadline=30)
        self.impatient: Cluster = CliCluster(self.conf, deadline=2)
        self.real_host = CliOsdHost(self.conf, NODE, deadline=30)
        self.host: OsdHost = self.real_host
        self._scratch = scratch
        self._numbers = itertools.count()
        self._loops: list[str] = []
        self._clients: dict[str, asyncio.subprocess.Process] = {}

    async def rbd(self, *words: str, input: bytes | None = None) -> bytes:
        """Return the output of `rbd`."""
        return (await run(("rbd", "--conf", self.conf, *words), timeout=LIMIT, input=input)).stdout

    async def rados(self, *words: str) -> bytes:
        """Return the output of `rados`."""
        return (await run(("rados", "--conf", self.conf, "--pool", POOL, *words), timeout=LIMIT)).stdout

    async def write(self, volume: str, data: bytes) -> None:
        written = b"rbd diff v1\nw" + struct.pack("<QQ", 0, len(data)) + data + b"e"
        await self.rbd("import-diff", "--no-progress", "-", f"{POOL}/{volume}", input=written)

    async def read(self, volume: str) -> bytes:
        return await self.rbd("export", "--no-progress", f"{POOL}/{volume}", "-")

    async def open(self, volume: str) -> None:
        argv = ("/usr/bin/python3", "-c", CLIENT, self.conf, POOL, volume)
        pipe = subprocess.PIPE
        client = self._clients[volume] = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
        assert await self._said(client) == b"open\n"

    async def can_write(self, volume: str) -> bool:
        client = self._clients[volume]
        assert client.stdin is not None
        client.stdin.write(b"\n")
        return await self._said(client) == b"written\n"

    async def _said(self, client: asyncio.subprocess.Process) -> bytes:
        assert client.stdout is not None
        async with asyncio.timeout(LIMIT):
            return await client.stdout.readline()

    async def close(self, volume: str) -> None:
        client = self._clients.pop(volume)
        assert client.stdin is not None
        client.stdin.close()
        try:
            async with asyncio.timeout(LIMIT):
                await client.wait()
        except TimeoutError:
            client.kill()
            await client.wait()

    async def interrupt_clone(self, source: str, volume: str) -> None:
        await self.rbd("snap", "create", "--no-progress", f"{POOL}/{source}@half")
        images = f"{POOL}/{source}@half", f"{POOL}/{volume}"
        await self.rbd("clone", "--rbd-default-clone-format", "2", *images)
        await self.rbd("snap", "rm", "--no-progress", f"{POOL}/{source}@half")

    def image(self, size: int = 2 * GiB) -> Path:
        """A sparse file."""
        image = self._scratch / f"image{next(self._numbers)}"
        with image.open("wb") as file:
            file.truncate(size)
        return image

    async def loop(self, image: Path, *options: str) -> str:
        """Return a loop device of a file, which is detached after the test."""
        argv = ("losetup", "--find", "--show", "--direct-io=on", *options, str(image))
        device = (await run(argv, timeout=LIMIT)).stdout.decode().strip()
        self._loops.append(device)
        return device

    async def device(self) -> str:
        return await self.loop(self.image())

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        known = state.read(self.directory)
        assert known is not None
        (mon,) = (server.process for server in known.servers if server.name == ceph.MON)
        assert state.send(mon, number)

    async def end(self) -> None:
        """Remove what a test left."""
        for volume in list(self._clients):
            await self.close(volume)
        # A pool that wants more copies than there are OSDs would keep every OSD from being drained.
        for pool in await self.cluster.pools():
            if pool.name != POOL:
                await self.cluster.remove_pool(pool.name)
        left = [osd for osd in await self.real_host.local_osds() if await self.real_host.osd_running(osd)]
        for osd in left:
            await self.real_host.remove_osd(osd)
        for loop in self._loops:
            await run(("losetup", "--detach", loop), timeout=LIMIT)
        for volume in await self.cluster.volumes(POOL):
            if volume.id:
                await self.rbd("snap", "purge", "--no-progress", f"{POOL}/{volume.name}")
            await self.rbd("rm", "--no-progress", f"{POOL}/{volume.name}")
        assert not left


@pytest.fixture(params=["fake", "cli"], name="place")
def place_fixture(request: pytest.FixtureRequest) -> Path | None:
    """The directory of the real one, or None for the fake."""
    if request.param == "fake":
        return None
    server: CephServer = request.getfixturevalue("ceph")
    return server.directory


@pytest.fixture(name="bench")
async def bench_fixture(place: Path | None, tmp_path: Path) -> AsyncIterator[Bench]:
    if place is None:
        bench = FakeBench()
        await bench.cluster.create_pool(POOL, 8, 1, 1)
        yield bench
    else:
        async with _real(place, tmp_path) as real:
            yield real


@pytest.fixture(name="real")
async def real_fixture(ceph: CephServer, tmp_path: Path) -> AsyncIterator[CliBench]:
    async with _real(ceph.directory, tmp_path) as bench:
        yield bench


@contextlib.asynccontextmanager
async def _real(directory: Path, scratch: Path) -> AsyncIterator[CliBench]:
    bench = CliBench(directory, scratch)
    try:
        yield bench
    finally:
        await bench.end()
