"""A running sandbox as tests see it: its API, its processes, its guests and its logs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

from pvcd.sandbox import guest
from pvcd.sandbox.cluster import LIBVIRT
from pvcd.sandbox.libvirtd import processes

CACHE = Path(__file__).parents[2] / "var" / "cache"


class Cluster:
    """Asks without an event loop of its own, so that any test can use it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.api = ""

    def run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "pvcd", "sandbox", *arguments, "--directory", str(self.directory)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self) -> None:
        self.run("up", "--detach", "--cache", str(CACHE))
        self.api = self.status()["api"]

    def down(self) -> None:
        self.run("down")

    def status(self) -> Any:
        return json.loads(self.run("status", "--json"))

    def server(self, name: str) -> Any:
        return next(server for server in self.status()["servers"] if server["name"] == name)

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        pid: int = self.server(name)["pid"]
        os.kill(pid, number)
        return pid

    def ask(self, method: str, path: str, /, **values: Any) -> tuple[int, Any]:
        data = urlencode(values, doseq=True).encode() if values else None
        request = Request(self.api + path, data=data, method=method)
        try:
            with urlopen(request, timeout=60) as reply:
                return reply.status, _decode(reply.read())
        except HTTPError as error:
            with error:
                return error.code, _decode(error.read())

    def get(self, path: str, /, **values: Any) -> Any:
        status, body = self.ask("GET", path, **values)
        assert status == 200, body
        return body

    def post(self, path: str, /, **values: Any) -> Any:
        status, body = self.ask("POST", path, **values)
        assert status == 200, body
        return body

    def vm(self, name: str) -> Any:
        return self.get(f"/vm/{name}")[0]

    def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Return once a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"it did not come true within {seconds} s"
            time.sleep(0.05)

    def until_state(self, name: str, state: str, running: bool, seconds: float = 20.0) -> None:
        def reached() -> bool:
            now = self.get(f"/vm/{name}/state")
            return bool(now["state"] == state and now["running"] is running)

        try:
            self.until(reached, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.vm(name)}") from None

    def qemu(self, name: str) -> int | None:
        """The process of a VM's guest."""
        for process in processes(self.directory / LIBVIRT):
            command = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode(errors="replace")
            if f"guest={name}," in command:
                return process.pid
        return None

    def tracebacks(self) -> list[str]:
        """What our own daemons logged that nobody foresaw."""
        found = []
        for name in ("api", "node", "sandbox"):
            log = self.directory / "log" / f"{name}.log"
            text = log.read_text(errors="replace") if log.exists() else ""
            found += [f"{name}: {match}" for match in re.findall(r"Traceback[\s\S]{0,3000}|.*never retrieved.*", text)]
        return found


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


class Guests:
    """Definitions of small guests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tiny = asyncio.run(guest.tiny(CACHE / "guest"))

    def linux(self, name: str) -> str:
        """Boots in seconds, greets, and reacts to the power button."""
        return guest.tiny_domain(name, uuid4(), self.tiny.kernel, self.tiny.initrd, "qemu")

    def sector(self, name: str) -> str:
        """Runs at once, and ignores the power button; each has a disk of its own, for QEMU locks it."""
        image = guest.boot_sector(self.directory / f"{name}.img")
        return guest.boot_sector_domain(name, uuid4(), image, "qemu")
