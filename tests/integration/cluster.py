"""A running sandbox as tests see it: its API, its processes, its guests and its logs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from kazoo.client import KazooClient

from pvcd_plugins.sandbox import guest
from pvcd_plugins.sandbox.cluster import LIBVIRT
from pvcd_plugins.sandbox.command import ALL_RUN, NOT_ALL_RUN
from pvcd_plugins.sandbox.libvirtd import processes
from tests.client import Client
from tests.sandboxes import launch

CACHE = Path(__file__).parents[2] / "var" / "cache"


@contextlib.contextmanager
def zookeeper_as(hosts: str, *login: tuple[str, str]) -> Iterator[KazooClient]:
    """Connect to a ZooKeeper with a login, or without."""
    client = KazooClient(hosts, auth_data=list(login))
    client.start()
    try:
        yield client
    finally:
        client.stop()
        client.close()


class Cluster(Client):
    """A client that also knows the servers behind the API."""

    def __init__(self, directory: Path) -> None:
        super().__init__("")
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._read: dict[str, int] = {}

    def run(self, *arguments: str, fine: tuple[int, ...] = (0,)) -> str:
        command = [sys.executable, "-m", "pvcd", "sandbox", *arguments, "--directory", str(self.directory)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode in fine, done.stdout + done.stderr
        return done.stdout

    def up(self, *options: str) -> None:
        files = ("--vm-files", str(self.directory.parent), "--vm-files", str(CACHE / "guest"))
        words = ("--directory", str(self.directory), "--host-network", "--cache", str(CACHE), *files, *options)
        self._process = launch(self.directory, "pvcd", "sandbox", "up", *words)
        self.api = self.status()["api"]

    def down(self) -> None:
        self.run("down")
        if self._process is not None:
            self._process.wait()

    def status(self) -> Any:
        return json.loads(self.run("status", "--json", fine=(ALL_RUN, NOT_ALL_RUN)))

    def server(self, name: str) -> Any:
        return next(server for server in self.status()["servers"] if server["name"] == name)

    @property
    def settings(self) -> Any:
        """The section `pvc` of the daemons' settings, with their passwords."""
        return yaml.safe_load((self.directory / "pvc-api.yaml").read_text())["pvc"]

    @contextlib.contextmanager
    def zookeeper(self) -> Iterator[KazooClient]:
        """Connect to ZooKeeper as the daemons do."""
        settings = self.settings
        login = f"{settings['zookeeper']['username']}:{settings['zookeeper']['password']}"
        with zookeeper_as(settings["coordinators"][0], ("digest", login)) as client:
            yield client

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        pid: int = self.server(name)["pid"]
        os.kill(pid, number)
        return pid

    def qemu(self, name: str) -> int | None:
        """The process of a VM's guest."""
        for process in processes(self.directory / LIBVIRT):
            command = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode(errors="replace")
            if f"guest={name}," in command:
                return process.pid
        return None

    def remove_vms(self) -> None:
        for vm in self.get("/vm"):
            self.ask("DELETE", f"/vm/{vm['name']}")

    def tracebacks(self) -> list[str]:
        """Return the unexpected errors that our daemons have logged since the last call."""
        found = []
        for name in ("api", "node", "worker", "sandbox"):
            said = self._said(name)
            found += [f"{name}: {match}" for match in re.findall(r"Traceback[\s\S]{0,3000}|.*never retrieved.*", said)]
        return found

    def _said(self, name: str) -> str:
        """The whole lines that a daemon has logged since the last time."""
        file = self.directory / "log" / f"{name}.log"
        if not file.exists():
            return ""
        with file.open("rb") as log:
            log.seek(self._read.get(name, 0))
            lines = log.read().rpartition(b"\n")
        self._read[name] = self._read.get(name, 0) + len(lines[0] + lines[1])
        return lines[0].decode(errors="replace")


class Guests:
    """Definitions of small guests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tiny = asyncio.run(guest.tiny(CACHE / "guest"))

    def linux(self, name: str) -> str:
        """Return a guest that boots in seconds, greets, and reacts to the power button."""
        return guest.tiny_domain(name, uuid4(), self.tiny.kernel, self.tiny.initrd, "qemu")

    def sector(self, name: str) -> str:
        """Return a guest that runs at once and ignores the power button, with its own disk because QEMU locks it."""
        image = guest.boot_sector(self.directory / f"{name}.img")
        return guest.boot_sector_domain(name, uuid4(), image, "qemu")
