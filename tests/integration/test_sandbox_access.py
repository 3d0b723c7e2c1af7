"""What other users of the machine, and clients without a password, can reach of a sandbox: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kazoo.exceptions import NoAuthError, SessionClosedRequireSaslError
from redis import Redis
from redis.exceptions import AuthenticationError

from pvcd.daemon.run import tree
from pvcd.plugin import registry
from pvcd.settings import read_file
from pvcd_plugins.sandbox import libvirtd, state
from pvcd_plugins.sandbox.cluster import LIBVIRT, SERVERS, Sandbox
from tests import sandboxes
from tests.contract.conftest import free_ports
from tests.integration.cluster import zookeeper_as

NOBODY = 65534
LISTENS = 0x10000
"""The flag of a listening socket in /proc/net/unix."""
PROBE = """
import os, socket, sys
what, path = sys.argv[1:]
try:
    os.listdir(path) if what == "list" else socket.socket(socket.AF_UNIX).connect(path)
except PermissionError:
    sys.exit(77)
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox in a directory that others can reach, made by its user with the usual mode."""
    with tempfile.TemporaryDirectory(prefix="pvcd-reachable-") as name:
        Path(name).chmod(0o755)
        directory = Path(name, "sandbox")
        directory.mkdir(mode=0o755)
        ports = dict(zip(("zookeeper", "redis", "api"), free_ports(3), strict=True))
        with sandboxes.running(directory, *SERVERS, ports=ports) as started:
            yield started


def as_nobody(what: str, path: Path) -> int:
    """Return the exit status of the probe, as an unprivileged user."""
    argv = ("/usr/bin/python3", "-I", "-c", PROBE, what, str(path))
    return subprocess.run(argv, user=NOBODY, group=NOBODY, extra_groups=(), check=False, cwd="/", timeout=60).returncode


def test_others_cannot_list_the_directory_or_connect_to_libvirt(sandbox: Sandbox) -> None:
    assert as_nobody("list", sandbox.directory.parent) == 0
    for folder in (sandbox.directory, sandbox.directory / "log", sandbox.directory / LIBVIRT / "run"):
        assert as_nobody("list", folder) == 77
    sockets = [path for path in sandbox.directory.rglob("*") if path.is_socket()]
    assert {"libvirt-sock", "libvirt-sock-ro", "libvirt-admin-sock", "virtlogd-sock"} <= {path.name for path in sockets}
    for path in sockets:
        assert as_nobody("connect", path) == 77, path
        assert path.stat().st_mode & 0o077 == 0, path


def test_no_server_listens_on_an_abstract_socket(sandbox: Sandbox) -> None:
    """Such a socket has no mode: every user of the network namespace could connect."""
    inodes = set()
    for process in state.processes(sandbox.directory) | libvirtd.processes(sandbox.directory / LIBVIRT):
        for file in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                inodes.add(os.readlink(file))
    rows = [line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    listening = [row for row in rows if int(row[3], 16) & LISTENS and f"socket:[{row[6]}]" in inodes]
    assert len(listening) > 2
    assert [row for row in listening if len(row) == 8 and row[7].startswith("@")] == []


def test_redis_answers_nobody_without_its_password(sandbox: Sandbox) -> None:
    with Redis(port=sandbox.ports["redis"]) as stranger, pytest.raises(AuthenticationError):
        stranger.get("key")
    with Redis(port=sandbox.ports["redis"], password=sandbox.password("redis")) as ours:
        ours.set("key", "value")


async def test_zookeeper_answers_nobody_without_its_password(sandbox: Sandbox) -> None:
    settings, _ = registry.start(read_file(sandbox.config_file))
    ours = tree(settings)
    await ours.open(lambda path: None, lambda link: None)  # as each daemon does
    await ours.watch(["/vms"])

    address = f"127.0.0.1:{sandbox.ports['zookeeper']}"

    def try_all() -> None:
        with zookeeper_as(address) as anonymous, pytest.raises(SessionClosedRequireSaslError):
            anonymous.get_children("/")
        with zookeeper_as(address, ("digest", "pvc:guessed")) as stranger:
            for attempt in (
                lambda: stranger.get_children("/"),
                lambda: stranger.get("/vms"),
                lambda: stranger.create("/vms/one", b"1"),
                lambda: stranger.create("/mine", b"1"),
                lambda: stranger.delete("/vms"),
            ):
                with pytest.raises(NoAuthError):
                    attempt()

    await asyncio.to_thread(try_all)
    await ours.close()


def test_passwords_are_in_files_of_their_owner_and_nowhere_else(sandbox: Sandbox) -> None:
    files = [*sandbox.directory.glob("*.password"), sandbox.config_file, sandbox.directory / "redis" / "redis.conf"]
    assert len(files) == 4 and [file for file in files if file.stat().st_mode & 0o077] == []
    passwords = {file.read_text() for file in files[:2]}
    assert len(passwords) == 2 and min(map(len, passwords)) >= 32
    told = [Path(f"/proc/{process.pid}/cmdline") for process in state.processes(sandbox.directory)]
    told += [*(sandbox.directory / "log").iterdir(), sandbox.directory / "state.json"]
    assert len(told) > 8
    assert [file for file in told if any(each in file.read_text() for each in passwords)] == []
