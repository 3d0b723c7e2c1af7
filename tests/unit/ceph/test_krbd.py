"""The mapping of the kernel's rbd, with scripted answers of `rbd`, because not every kernel has the module."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pvcd import programs
from pvcd.errors import NotFound, Refused, TimedOut
from pvcd.programs.runner import ProgramFailed, Result
from pvcd_plugins.ceph.cluster import InUse
from pvcd_plugins.ceph.mapping import IsMapped, Mapped, choice
from pvcd_plugins.ceph.mapping.choice import choose
from pvcd_plugins.ceph.mapping.fuse import FuseMapping
from pvcd_plugins.ceph.mapping.krbd import KernelMapping

CONF = Path("/etc/ceph/ceph.conf")


class Kernel:
    """The answers of `rbd`, as far as the mapping uses it."""

    def __init__(self) -> None:
        self.devices: dict[tuple[str, str], str] = {}
        self.watchers: list[dict[str, Any]] = []
        self.asked: list[list[str]] = []
        self.fail_map: Exception | None = None

    async def run(self, argv: Sequence[str], **_: Any) -> Result:
        assert argv[:5] == ["rbd", "--conf", str(CONF), "--id", "pvcd"]
        words = list(argv[5:])
        self.asked.append(words)
        match words:
            case ["device", "list", *_]:
                listed = [
                    {"id": "0", "pool": pool, "namespace": "", "name": name, "snap": "-", "device": device}
                    for (pool, name), device in self.devices.items()
                ]
                return Result(0, json.dumps(listed).encode(), b"")
            case ["status", *_, "--pool", _, "--image", "none"]:
                return Result(2, b"", b"rbd: error opening image none: (2) No such file or directory\n")
            case ["status", *_]:
                return Result(0, json.dumps({"watchers": self.watchers}).encode(), b"")
            case ["map", *_, "--pool", pool, "--image", name]:
                if self.fail_map:
                    raise self.fail_map
                self.devices[pool, name] = device = f"/dev/rbd{len(self.devices)}"
                return Result(0, f"{device}\n".encode(), b"")
            case ["unmap", device]:
                self.devices = {key: each for key, each in self.devices.items() if each != device}
                return Result(0, b"", b"")
        raise AssertionError(words)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(programs, "run", kernel.run)
    return kernel


@pytest.fixture
def mapping(tmp_path: Path, kernel: Kernel) -> KernelMapping:
    return KernelMapping(tmp_path, conf=CONF, user="pvcd")


async def test_a_volume_is_mapped_exclusively_once_and_unmapped(mapping: KernelMapping, kernel: Kernel) -> None:
    assert await mapping.map("vms", "a") == Path("/dev/rbd0")
    assert kernel.asked[-1] == ["map", "--exclusive", "--pool", "vms", "--image", "a"]
    assert await mapping.mapped() == [Mapped("vms", "a", Path("/dev/rbd0"))]
    with pytest.raises(IsMapped, match="as /dev/rbd0"):
        await mapping.map("vms", "a")
    await mapping.unmap("vms", "a")
    await mapping.unmap("vms", "a")
    assert (kernel.devices, await mapping.mapped()) == ({}, [])


async def test_mappings_of_others_are_neither_shown_nor_mapped_nor_unmapped(
    mapping: KernelMapping, kernel: Kernel
) -> None:
    kernel.devices["vms", "a"] = "/dev/rbd7"
    with pytest.raises(IsMapped, match="as /dev/rbd7"):
        await mapping.map("vms", "a")
    await mapping.unmap("vms", "a")
    assert (await mapping.mapped(), await mapping.clean()) == ([], [])
    assert kernel.devices == {("vms", "a"): "/dev/rbd7"}


async def test_an_open_or_missing_volume_is_refused(mapping: KernelMapping, kernel: Kernel) -> None:
    with pytest.raises(NotFound):
        await mapping.map("vms", "none")
    kernel.watchers = [{"address": "10.0.0.7:0/1", "client": 4, "cookie": 1}]
    with pytest.raises(InUse, match=r"10\.0\.0\.7:0/1 has it open"):
        await mapping.map("vms", "a")
    assert await mapping.mapped() == []


async def test_a_failure_leaves_nothing(mapping: KernelMapping, kernel: Kernel, tmp_path: Path) -> None:
    kernel.fail_map = ProgramFailed("rbd failed.")
    with pytest.raises(ProgramFailed):
        await mapping.map("vms", "a")
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


async def test_a_volume_mapped_after_the_time_limit_is_ours(
    mapping: KernelMapping, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.fail_map = TimedOut("rbd did not finish within 30 s and was ended.")
    run = kernel.run

    async def late(argv: Sequence[str], **options: Any) -> Result:
        if argv[5] == "map":
            kernel.devices["vms", "a"] = "/dev/rbd0"
        return await run(argv, **options)

    monkeypatch.setattr(programs, "run", late)
    with pytest.raises(TimedOut):
        await mapping.map("vms", "a")
    assert await mapping.mapped() == [Mapped("vms", "a", Path("/dev/rbd0"))]
    await mapping.unmap("vms", "a")
    assert (kernel.devices, await mapping.mapped()) == ({}, [])


async def test_a_mapping_that_the_kernel_lost_is_forgotten(mapping: KernelMapping, kernel: Kernel) -> None:
    await mapping.map("vms", "a")
    kernel.devices.clear()
    assert await mapping.mapped() == await mapping.clean() == [Mapped("vms", "a", None)]
    assert await mapping.mapped() == []


async def test_the_rbd_of_the_kernel_is_chosen_if_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bus").mkdir()
    monkeypatch.setattr(choice, "BUS", tmp_path / "bus")
    assert isinstance(await choose(tmp_path, conf=CONF, user="pvcd"), KernelMapping)


async def test_otherwise_the_storage_daemon_is_chosen_or_its_missing_packages_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def missing(*_: Any, **__: Any) -> Result:
        raise ProgramFailed("modprobe failed with exit status 1.")

    monkeypatch.setattr(choice, "BUS", tmp_path / "none")
    monkeypatch.setattr(programs, "run", missing)
    monkeypatch.setattr(choice.os, "access", lambda *_: True)
    monkeypatch.setattr(choice.shutil, "which", lambda program: f"/bin/{program}")
    assert isinstance(await choose(tmp_path, conf=CONF, user="pvcd"), FuseMapping)
    monkeypatch.setattr(choice.shutil, "which", lambda program: None if program == "rbd" else "/bin/it")
    with pytest.raises(Refused, match=r"rbd is not installed.*ceph-common") as caught:
        await choose(tmp_path, conf=CONF, user="pvcd")
    assert caught.value.code == "mapping-not-available"
