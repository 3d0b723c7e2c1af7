"""The servers that the benchmarks measure, and the table that they print."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlencode

import yaml

HERE = Path(__file__).parent
LOGIN = {"username": "bench", "password": "bench"}
"""The name and password at ZooKeeper."""


@dataclass
class Server:
    """A process that listens on a port of loopback."""

    process: subprocess.Popen[bytes]
    port: int
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method: str, path: str, **values: str) -> bytes:
        """Return the body of a reply; raise if it is no success."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if values else {}
        self.connection.request(method, path, urlencode(values) or None, headers)
        reply = self.connection.getresponse()
        body = reply.read()
        if reply.status not in (200, 209):
            raise RuntimeError(f"{method} {path}: {reply.status} {body[:300]!r}")
        return body

    def memory(self) -> float:
        """Return the resident memory in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def wait(self, path: str) -> None:
        """Return when the server answers with success."""
        for _ in range(6000):
            try:
                self.ask("GET", path)
                return
            except (RuntimeError, OSError, http.client.HTTPException):
                self.connection.close()
                time.sleep(0.005)
        raise RuntimeError("a server did not start")


@contextlib.contextmanager
def server(*argv: str, port: int, **environment: str) -> Iterator[Server]:
    """Run a server during the block."""
    process = subprocess.Popen([sys.executable, *argv], env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        yield Server(process, port)
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def settings(address: str, chroot: str, port: int) -> dict[str, Any]:
    """Return the settings that every daemon needs."""
    listen = {"listen_address": "127.0.0.1", **({"listen_port": port} if port else {})}
    return {
        "debug": False,
        "coordinators": [address],
        "api": {**listen, "authentication": {"enabled": False}, "ssl": {"enabled": False}},
        "zookeeper": {"chroot": chroot, "deadline": 10, **LOGIN},
        "vm": {"host_access": [{"files": ["/var"]}]},
        "plugins": {"directories": [str(HERE / "plugins")]},
    }


def write(file: Path, values: dict[str, Any]) -> str:
    """Write a settings file and return its path."""
    file.write_text(yaml.safe_dump({"pvc": values}))
    return str(file)


@contextlib.contextmanager
def api(folder: Path, address: str, chroot: str) -> Iterator[Server]:
    """Run an API server on the filled store."""
    port = free_port()
    config = write(folder / f"api-{port}.yaml", settings(address, chroot, port))
    with server("-m", "pvcd", "api", port=port, PVC_CONFIG_FILE=config) as started:
        yield started


def header(title: str) -> None:
    """Print the header of a table."""
    print(f"\n{title}\n")
    print("|                                    | ours, ms |  p99, ms | baseline | ratio |")
    print("|------------------------------------|----------|----------|----------|-------|")


def row(what: str, ours: list[float], baseline: list[float] | None = None) -> None:
    """Print one line of a table."""
    p99 = quantiles(ours, n=100)[98] if len(ours) > 1 else ours[0]
    line = f"| {what:<34} | {median(ours):>8.2f} | {p99:>8.2f} |"
    print(
        f"{line} {median(baseline):>8.2f} | {median(ours) / median(baseline):>5.2f} |"
        if baseline
        else f"{line}          |       |"
    )
