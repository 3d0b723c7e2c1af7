"""Daemons for tests: API servers, and a cluster of several nodes that needs no hypervisor.

`ManyNodes` is a real ZooKeeper, real API processes, and one process with the real agents of several nodes, of which
only the hypervisors are fakes (see tests/nodes.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import yaml

from pvcd_plugins.sandbox.guest import EMULATOR
from tests.client import Client
from tests.contract.conftest import ZooKeeperServer, free_ports, needs_zookeeper

ROOT = Path(__file__).parents[1]
PATIENCE = 60.0


def settings(hosts: str, port: int, *, token: str = "", **sections: Any) -> dict[str, Any]:
    """Return the settings of a daemon without TLS, and with authentication if a token is given."""
    api = {
        "listen_address": "127.0.0.1",
        "listen_port": port,
        "authentication": {"enabled": bool(token), "secret_key": "k" * 32, "tokens": [{"token": token}]},
        "ssl": {"enabled": False},
    }
    return {"debug": False, "coordinators": [hosts], "api": api, **sections}


class Daemon:
    """A daemon with its own settings file."""

    def __init__(self, folder: Path, values: dict[str, Any], *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self._log = folder / "pvc-api.yaml", folder / "log"
        self.file.write_text(yaml.safe_dump({"pvc": values}))
        self._argv = [sys.executable, "-m", *arguments]
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self, *through: str) -> None:
        """Start the daemon, if requested through another program that executes it."""
        environment = {**os.environ, "PVC_CONFIG_FILE": str(self.file)}
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [*through, *self._argv], cwd=ROOT, stdout=output, stderr=output, env=environment
            )

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        """Stop it and return its exit code."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.send_signal(how)
        try:
            return process.wait(PATIENCE)
        finally:
            process.kill()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def has_not_stumbled(self) -> None:
        """Assert that no unexpected error was logged."""
        assert "Traceback" not in self.log and "never retrieved" not in self.log, self.log


class Api(Daemon, Client):
    """A `pvcd api` process."""

    def __init__(self, folder: Path, hosts: str, **sections: Any) -> None:
        self.port = free_ports(1)[0]
        Daemon.__init__(self, folder, settings(hosts, self.port, **sections), "pvcd", "api")
        Client.__init__(self, f"http://127.0.0.1:{self.port}/api/v1")
        self.headers = {"X-Api-Key": sections["token"]} if "token" in sections else {}

    def start(self, *through: str) -> None:
        """Start it, and return when it answers."""
        self.launch(*through)
        self.until(self.answers, PATIENCE)

    def answers(self) -> bool:
        assert self.process and self.process.poll() is None, self.log
        with contextlib.suppress(OSError):
            return self.send("GET", "").status == 209
        return False


class ManyNodes:
    """A cluster of the nodes of tests/nodes.py, with any number of API servers."""

    def __init__(self, folder: Path, zookeeper: ZooKeeperServer, **sections: Any) -> None:
        self._folder, self._zookeeper = folder, zookeeper
        self._sections: dict[str, Any] = {
            "zookeeper": {"chroot": f"/{uuid4()}", "session_timeout": 3},
            "keepalive": {"interval": 1},
        }
        self._sections |= sections
        self.daemons: list[Daemon] = []

    def api(self) -> Api:
        """One more API server, started."""
        api = Api(self._folder / f"api{len(self.daemons)}", self._zookeeper.hosts, **self._sections)
        self.daemons.append(api)
        api.start()
        return api

    def nodes(self, api: Api, *names: str) -> Daemon:
        """The agents of nodes in one process, when the API says that all of them run."""
        values = settings(self._zookeeper.hosts, api.port, **self._sections)
        daemon = Daemon(self._folder / "-".join(names), values, "tests.nodes", *names)
        self.daemons.append(daemon)
        daemon.launch()

        def run() -> bool:
            assert daemon.process and daemon.process.poll() is None, daemon.log
            states = {node["name"]: node["daemon_state"] for node in api.get("/node")}
            return all(states.get(name) == "run" for name in names)

        api.until(run, PATIENCE)
        return daemon

    def stop(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.stop()


@contextlib.contextmanager
def zookeeper_server(folder: Path) -> Iterator[ZooKeeperServer]:
    """Run a ZooKeeper server during the block."""
    needs_zookeeper()
    server = ZooKeeperServer(folder, free_ports(1)[0])
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def many_nodes(folder: Path, zookeeper: ZooKeeperServer, **sections: Any) -> Iterator[ManyNodes]:
    """Run a cluster during the block; no process may log an unexpected error."""
    cluster = ManyNodes(folder, zookeeper, **sections)
    try:
        yield cluster
    finally:
        cluster.stop()
    for daemon in cluster.daemons:
        daemon.has_not_stumbled()


def definition(name: str, *, uuid: UUID | None = None, memory: int = 64, vcpus: int = 1) -> str:
    """A VM that a fake hypervisor runs."""
    return (
        f"<domain type='qemu'><name>{name}</name><uuid>{uuid or uuid4()}</uuid><memory unit='MiB'>{memory}</memory>"
        f"<vcpu>{vcpus}</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>"
        f"<devices><emulator>{EMULATOR}</emulator><serial type='pty'/></devices></domain>"
    )


def within(seconds: float) -> contextlib.AbstractContextManager[None]:
    """Assert that a block takes no longer."""

    @contextlib.contextmanager
    def measured() -> Iterator[None]:
        begun = time.monotonic()
        yield
        taken = time.monotonic() - begun
        assert taken <= seconds, f"it took {taken:.2f} s"

    return measured()
