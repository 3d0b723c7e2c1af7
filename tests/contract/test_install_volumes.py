"""The disks of a VM, from nothing to installed and back to nothing, on a real Ceph."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pvcd.clock import SystemClock
from pvcd.errors import Failed, TimedOut
from pvcd_plugins.ceph.cluster.cli import CliCluster
from pvcd_plugins.ceph.cluster.names import clone_snapshot
from pvcd_plugins.ceph.mapping.fuse import FuseMapping, _daemon
from pvcd_plugins.provisioner import filesystems, volumes
from pvcd_plugins.provisioner.installation import Disk
from pvcd_plugins.provisioner.installation.child import ChildInstallation
from pvcd_plugins.provisioner.volumes import Wanted
from tests.contract.installations import Traces, job, until
from tests.contract.volumes import CephServer

WRITE = "def install(temporary_directory, **kwargs):\n    open(temporary_directory + '/var/here', 'w').write('text')\n"
READ = "def install(temporary_directory, **kwargs):\n    print(open(temporary_directory + '/here').read())\n"
HANG = "import time\ndef install(**kwargs):\n    open('/tmp/target/x', 'w').write('x' * 999999)\n    time.sleep(1000)\n"


class Steps:
    """The steps of a task, and the facts that they record."""

    def __init__(self, ceph: CephServer, folder: Path) -> None:
        self.ceph = ceph
        self.cluster = CliCluster(str(ceph.conf), deadline=30)
        self.mapping = FuseMapping(folder / "mapped", conf=ceph.conf, user=ceph.user)
        self.folder = folder
        self.facts: dict[str, Any] = {"volumes": [], "mapped": []}
        self.lines: list[str] = []

    async def intend(self, **facts: Any) -> None:
        self.facts |= facts

    async def output(self, line: str) -> None:
        self.lines.append(line)

    async def disks(self, *wanted: Wanted, filesystem: str = "ext4", mountpoints: tuple[str, ...]) -> list[Disk]:
        """Volumes, mapped; those that are not clones are formatted."""
        await volumes.create(self.cluster, wanted, self.intend)
        devices = await volumes.map_all(self.mapping, [(each.pool, each.volume) for each in wanted], self.intend)
        for each, device in zip(wanted, devices, strict=True):
            if each.source is None:
                await filesystems.make_filesystem(device, filesystem, ["-L=data"])
        return [
            Disk(each.pool, each.volume[-3:], each.size_gb, mountpoint, filesystem, ("-L=data",), device)
            for each, mountpoint, device in zip(wanted, mountpoints, devices, strict=True)
        ]

    async def install(self, script: str, *disks: Disk, limit: float = 60.0) -> None:
        await ChildInstallation().install(job(script, *disks), output=self.output, limit=limit)

    async def unmap(self) -> None:
        await volumes.unmap_all(self.mapping, self.facts["mapped"], SystemClock())

    async def undo(self) -> None:
        await self.unmap()
        await volumes.remove(self.cluster, self.facts["volumes"], SystemClock())

    def kill_mapping(self, disk: Disk) -> None:
        pid = _daemon(self.folder / "mapped" / disk.pool / f"web1_{disk.disk_id}")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def steps(ceph: CephServer, tmp_path: Path) -> AsyncIterator[Steps]:
    """Steps on a Ceph, of which nothing is left when they are undone."""
    traces, before = Traces(), ceph.rbd("ls", ceph.pool)
    made = Steps(ceph, tmp_path)
    yield made
    await made.undo()
    assert await made.mapping.mapped() == []
    assert ceph.rbd("ls", ceph.pool) == before
    until(lambda: traces.left() == [])


async def test_installed_files_are_in_the_volumes_and_their_clones(steps: Steps) -> None:
    pool = steps.ceph.pool
    wanted = Wanted(pool, "web1_sda", 1), Wanted(pool, "web1_sdb", 1)
    await steps.install(WRITE, *await steps.disks(*wanted, mountpoints=("/", "/var")))
    await steps.unmap()
    other = Steps(steps.ceph, steps.folder)
    await other.install(READ, *await other.disks(Wanted(pool, "web2_sda", source="web1_sdb"), mountpoints=("/",)))
    assert other.lines == ["text"]
    await other.undo()


async def test_the_parts_of_an_interrupted_creation_are_removed(steps: Steps) -> None:
    pool, rbd = steps.ceph.pool, steps.ceph.rbd
    await steps.cluster.create_volume(pool, "golden", 2**22)
    facts = [{"pool": pool, "volume": f"web1_sd{each}", "source": "golden", "id": None} for each in "abcd"]
    incomplete, unlisted, copy, _ = (str(fact["volume"]) for fact in facts)
    await steps.cluster.create_volume(pool, incomplete, 2**22)
    id = (await steps.cluster.volume(pool, incomplete)).id
    steps.ceph.ask("rados", "--pool", pool, "rm", f"rbd_header.{id}")
    steps.ceph.ask("rados", "--pool", pool, "cp", "rbd_id.golden", f"rbd_id.{unlisted}")
    rbd("snap", "create", "--no-progress", clone_snapshot(pool, "golden", copy))
    rbd("clone", "--rbd-default-clone-format", "2", clone_snapshot(pool, "golden", copy), f"{pool}/{copy}")
    await volumes.remove(steps.cluster, facts, SystemClock())
    assert "web1" not in rbd("ls", pool) + steps.ceph.ask("rados", "--pool", pool, "ls")
    assert json.loads(rbd("snap", "ls", "--all", "--format", "json", f"{pool}/golden")) == []
    await steps.cluster.remove_volume(pool, "golden")


@pytest.mark.parametrize("filesystem", ["ext2", "ext3", "xfs"])
async def test_other_file_systems_are_created_and_mounted(steps: Steps, filesystem: str) -> None:
    wanted = Wanted(steps.ceph.pool, "web1_sda", 1)
    [disk] = await steps.disks(wanted, filesystem=filesystem, mountpoints=("/",))
    await steps.install(READ.replace("open", "print").replace(".read())", ")"), disk)


async def test_a_script_that_is_killed_while_it_writes_leaves_removable_volumes(steps: Steps) -> None:
    [disk] = await steps.disks(Wanted(steps.ceph.pool, "web1_sda", 1), mountpoints=("/",))
    with pytest.raises(TimedOut):
        await steps.install(HANG, disk, limit=2)


async def test_a_mapping_that_is_killed_under_a_script_leaves_removable_volumes(steps: Steps) -> None:
    [disk] = await steps.disks(Wanted(steps.ceph.pool, "web1_sda", 1), mountpoints=("/",))
    task = asyncio.create_task(steps.install(HANG, disk, limit=10))
    await asyncio.to_thread(until, lambda: _is_held(disk))
    steps.kill_mapping(disk)
    with pytest.raises(Failed):
        await task


def _is_held(disk: Disk) -> bool:
    assert disk.device is not None
    try:
        os.close(os.open(disk.device, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return True
    return False


async def test_mkfs_runs_in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(filesystems, "mkfs", lambda *_: ["sh", "-c", f"ls -A >{seen}"])
    await filesystems.make_filesystem(tmp_path, "ext4", [])
    assert seen.read_text() == ""
