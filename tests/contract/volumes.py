"""The real Ceph of all suites that need one, and what they ask of it with its own programs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvcd.errors import Failed
from pvcd_plugins.sandbox import ceph, packages
from pvcd_plugins.sandbox.cluster import CEPH
from tests import sandboxes


class CephServer:
    """A cluster with a pool, asked as its administrator."""

    def __init__(self, directory: Path, user: str, pool: str) -> None:
        self.directory = directory
        """That of its sandbox."""
        self.conf = ceph.conf(directory / CEPH)
        self.user = user
        """A user of volumes."""
        self.pool = pool

    def ask(self, program: str, *arguments: str) -> str:
        """Return the output of a program of Ceph."""
        argv = [program, "--conf", str(self.conf), *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    def rbd(self, *arguments: str) -> str:
        return self.ask("rbd", *arguments)

    def key(self, user: str) -> str:
        """The secret of a user."""
        return self.ask("ceph", "auth", "get-key", f"client.{user}").strip()

    def used(self, pool: str, volume: str) -> int:
        """Bytes of a volume that are stored."""
        [image] = json.loads(self.rbd("du", "--format", "json", f"{pool}/{volume}"))["images"]
        return int(image["used_size"])


@pytest.fixture(scope="session", name="ceph")
def ceph_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephServer]:
    absent = "" if os.geteuid() == 0 else "a Ceph of our own needs root"
    try:
        packages.check(ceph.NAMES)
    except Failed as error:
        absent = error.sentence
    if absent and os.environ.get("CI"):
        pytest.fail(absent)
    if absent:
        pytest.skip(absent)
    directory = tmp_path_factory.mktemp("ceph")
    with sandboxes.running(directory, CEPH):
        yield CephServer(directory, "libvirt", ceph.POOL)
