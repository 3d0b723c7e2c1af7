"""The sandbox's Ceph starts in seconds, keeps its data, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pvcd.errors import Failed
from pvcd.programs.runner import Result, run
from pvcd_plugins.ceph.cluster.cli import CliCluster
from pvcd_plugins.ceph.cluster.osd import CliOsdHost
from pvcd_plugins.sandbox import ceph, packages, state
from pvcd_plugins.sandbox.cluster import CEPH, WITHOUT_CEPH, Sandbox
from pvcd_plugins.sandbox.state import runs, wait_until_gone
from tests.contract.conftest import free_ports

MiB = 1024**2


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[Path]:
    """A directory so deep that its sockets need a short link."""
    try:
        packages.check(ceph.NAMES)
        if os.geteuid() != 0:
            raise Failed("root is needed")
    except Failed as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(error.sentence)
    path = tmp_path / ("deep-" * 15) / "sandbox"
    yield path
    left = state.processes(path)
    await state.end(lambda: state.processes(path))
    assert not left
    assert not links_to(path)


def links_to(directory: Path) -> list[Path]:
    return [link for link in Path("/run").glob("pvcd-*") if str(directory) in os.readlink(link)]


def secrets(directory: Path) -> list[Path]:
    return [*directory.glob("*keyring"), directory / "keys.json", *directory.glob("*/keyring")]


def sandbox(directory: Path, said: list[str]) -> Sandbox:
    return Sandbox(directory, only=(CEPH,), requested_ports={ceph.MON: free_ports(1)[0]}, report=said.append)


async def as_client(directory: Path, name: str, *argv: str) -> Result:
    conf = str(ceph.conf(directory / CEPH))
    return await run((argv[0], "--conf", conf, "--name", name, *argv[1:]), timeout=30, check=False)


async def test_ceph_starts_healthy_with_a_pool_and_limited_rights_for_guests(directory: Path) -> None:
    said: list[str] = []
    async with sandbox(directory, said):
        known = state.read(directory)
        assert known is not None and [server.name for server in known.servers] == list(ceph.NAMES)
        assert any(line.startswith("ceph        HEALTH_OK after") for line in said)
        cluster = CliCluster(ceph.settings(directory / CEPH)["conf"])
        (pool,) = await cluster.pools()
        assert (pool.name, pool.applications, pool.copies) == ("vms", ("rbd",), 1)
        (osd,) = await cluster.osds()
        assert osd.node == "pvchv1" and osd.up
        for argv, allowed in (
            (("rbd", "create", "--size", "8M", "vms/guest"), True),
            (("rbd", "ls", "vms"), True),
            (("ceph", "osd", "out", "0"), False),
            (("ceph", "auth", "get-key", "client.admin"), False),
            (("ceph", "osd", "pool", "create", "mine"), False),
        ):
            assert ((await as_client(directory, "client.libvirt", *argv)).returncode == 0) is allowed, argv
        files = secrets(directory / CEPH)
        assert len(files) >= 4 and not [file for file in files if file.stat().st_mode & 0o077]
    assert state.read(directory) is None


async def test_data_survives_kill_9_of_everything_and_a_new_port(directory: Path) -> None:
    async with sandbox(directory, []) as first:
        cluster = CliCluster(str(ceph.conf(directory / CEPH)))
        await cluster.create_volume("vms", "disk", 8 * MiB)
        await cluster.remove_pool("vms")
        await cluster.create_pool("other", 8, 1, 1)
        await cluster.create_volume("other", "disk", 8 * MiB)
        for child in first._supervisor.children.values():
            assert child.keeper is not None
            child.keeper.cancel()
            state.send(child.id, signal.SIGKILL)
        assert await wait_until_gone([child.id for child in first._supervisor.children.values()], 5)
    said: list[str] = []
    async with sandbox(directory, said) as second:
        assert second.ports[ceph.MON] != first.ports[ceph.MON]
        assert [pool.name for pool in await cluster.pools()] == ["other"]
        assert [volume.name for volume in await cluster.volumes("other")] == ["disk"]
        assert (await cluster.status()).health == "HEALTH_OK"


async def test_a_killed_server_is_restarted(directory: Path) -> None:
    async with sandbox(directory, []) as running:
        cluster = CliCluster(str(ceph.conf(directory / CEPH)))
        await cluster.create_volume("vms", "disk", 8 * MiB)
        child = running._supervisor.children[ceph.MON]
        state.send(child.id, signal.SIGKILL)
        assert [volume.name for volume in await cluster.volumes("vms")] == ["disk"]
        assert child.restarts == 1 and runs(child.id)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        while not await condition():  # noqa: ASYNC110 - a condition of other processes
            await asyncio.sleep(0.2)


async def test_an_osd_that_was_paused_serves_again(directory: Path) -> None:
    async with sandbox(directory, []) as running:
        cluster = CliCluster(str(ceph.conf(directory / CEPH)))
        osd = running._supervisor.children[ceph.OSD]

        async def marked_down() -> bool:
            return (await cluster.status()).osds_up == 0

        state.send(osd.id, signal.SIGSTOP)
        await until(marked_down)
        state.send(osd.id, signal.SIGCONT)
        await cluster.create_volume("vms", "disk", 8 * MiB)
        assert [volume.name for volume in await cluster.volumes("vms")] == ["disk"]


async def test_an_osd_outlives_any_number_of_pauses(directory: Path) -> None:
    """By default, Ceph ends an OSD for good that was marked down six times in ten minutes, as it is after a pause."""
    async with sandbox(directory, []) as running:
        cluster = CliCluster(str(ceph.conf(directory / CEPH)))
        osd = running._supervisor.children[ceph.OSD]
        before = osd.id
        log = directory / CEPH / "log" / "osd.0.log"
        for number in range(1, 8):
            await as_client(directory, "client.admin", "ceph", "osd", "down", "0")

            async def back(number: int = number) -> bool:
                noticed = log.read_text().count("wrongly marked me down") >= number
                return noticed and (await cluster.status()).osds_up == 1

            await until(back)
        await cluster.create_volume("vms", "disk", 8 * MiB)
        assert osd.id == before and osd.restarts == 0


async def test_an_osd_that_cannot_find_back_is_restarted(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceph, "LOST_SECONDS", 2.0)
    said: list[str] = []
    async with sandbox(directory, said) as running:
        cluster = CliCluster(str(ceph.conf(directory / CEPH)))
        osd = running._supervisor.children[ceph.OSD]
        await cluster.set_option("noup")
        await as_client(directory, "client.admin", "ceph", "osd", "down", "0")

        async def killed() -> bool:
            return any("ceph-osd    it has not been ready" in line for line in said)

        await until(killed)
        await cluster.unset_option("noup")
        await cluster.create_volume("vms", "disk", 8 * MiB)
        assert osd.restarts >= 1


async def test_an_added_osd_stops_with_the_sandbox_and_can_be_restarted(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(state.MARK, str(directory))  # as what the node starts has it
    with (tmp_path / "image").open("wb") as file:
        file.truncate(2 * 1024 * MiB)
    losetup = ("losetup", "--find", "--show", "--direct-io=on", str(tmp_path / "image"))
    device = (await run(losetup, timeout=30)).stdout.decode().strip()
    try:
        said: list[str] = []
        conf = str(ceph.conf(directory / CEPH))
        cluster, host = CliCluster(conf), CliOsdHost(conf, "pvchv1")
        async with sandbox(directory, said):
            osd = await host.prepare_osd(device, 5.0)
            await cluster.create_volume("vms", "disk", 8 * MiB)
            assert (await cluster.status()).osds_up == 2
        assert "ceph-osd    added OSDs ended: 1" in said
        assert not await host.osd_running(osd)
        async with sandbox(directory, said):
            assert await host.local_osds() == [osd]
            for _ in range(2):
                await host.start_osd(osd)
            assert await host.osd_running(osd)
            assert [volume.name for volume in await cluster.volumes("vms")] == ["disk"]
    finally:
        await run(("losetup", "--detach", device), timeout=30)


async def test_ceph_can_be_left_out(directory: Path) -> None:
    packages.check(WITHOUT_CEPH)
    pvcd = (sys.executable, "-m", "pvcd", "sandbox")
    at = ("--directory", str(directory))
    names = ("--api-port", "--zookeeper-port", "--redis-port")
    ports = [word for name, port in zip(names, free_ports(3), strict=True) for word in (name, str(port))]
    try:
        up = await run((*pvcd, "up", "--detach", "--without-ceph", *at, *ports), timeout=100, check=False)
        assert up.returncode == 0 and b"ceph" not in up.stdout, up
        status = await run((*pvcd, "status", "--json", *at), timeout=30)
        assert [server["name"] for server in json.loads(status.stdout)["servers"]] == list(WITHOUT_CEPH)
    finally:
        await run((*pvcd, "down", *at), timeout=100)
