"""Real servers for the contract suites."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.volumes import ceph_fixture  # noqa: F401 - one for all suites here

JAR = Path("/usr/share/java/zookeeper.jar")


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    """One ZooKeeper server."""
    needs_zookeeper()
    server = ZooKeeperServer(tmp_path_factory.mktemp("zookeeper"), free_ports(1)[0])
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ZooKeeperServer]]:
    """Three ZooKeeper servers that elect a leader."""
    needs_zookeeper()
    ports = free_ports(9)
    peers = [f"server.{n + 1}=127.0.0.1:{ports[3 + n]}:{ports[6 + n]}" for n in range(3)]
    folder = tmp_path_factory.mktemp("ensemble")
    servers = [ZooKeeperServer(folder / str(n + 1), ports[n], [*peers, *ENSEMBLE]) for n in range(3)]
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.await_service()
        yield servers
    finally:
        for server in servers:
            server.stop()


def needs_zookeeper() -> None:
    """Skip the test where ZooKeeper is not installed, but fail it where everything must be."""
    if not JAR.exists() or not shutil.which("java"):
        missing = "ZooKeeper is not installed: apt install zookeeper default-jre-headless"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)


ENSEMBLE = ["initLimit=20", "syncLimit=10", "standaloneEnabled=false", "reconfigEnabled=false"]


class ZooKeeperServer:
    """A ZooKeeper server as a child process, with its data in a folder of its own."""

    def __init__(self, folder: Path, port: int, peers: list[str] | None = None, address: str = "127.0.0.1") -> None:
        self.hosts = f"{address}:{port}"
        self._address = address
        self._port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True)
        (folder / "data/myid").write_text(folder.name if peers else "1")
        settings = [
            f"dataDir={folder}/data",
            f"clientPort={port}",
            f"clientPortAddress={address}",
            "tickTime=500",
            "minSessionTimeout=1000",
            "maxSessionTimeout=60000",
            "maxClientCnxns=0",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
            *(peers or []),
        ]
        (folder / "zoo.cfg").write_text("\n".join(settings) + "\n")

    def start(self) -> None:
        """Start the server and wait until it serves."""
        self.launch()
        self.await_service()

    def launch(self) -> None:
        """Start the server."""
        java = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.forceSync=no"]
        main = ["-cp", str(JAR), "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(self._folder / "zoo.cfg")]
        with (self._folder / "log").open("ab") as output:
            self._process = subprocess.Popen([*java, *main], stdout=output, stderr=output)

    def await_service(self) -> None:
        """Wait until the server serves clients (it says `imok` before it does)."""
        end = time.monotonic() + 60
        while not self.mode():
            assert self._process and self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < end, f"the ZooKeeper server at {self.hosts} does not serve after 60 s"
            time.sleep(0.05)

    def mode(self) -> str:
        """`standalone`, `leader` or `follower`; nothing while it does not serve."""
        try:
            with socket.create_connection((self._address, self._port), timeout=2) as connection:
                connection.sendall(b"srvr")
                answer = connection.makefile("rb").read().decode()
        except OSError:
            return ""
        return answer.partition("Mode: ")[2].partition("\n")[0]

    def pause(self) -> None:
        """Let the server hang: its port takes connections and nothing is answered."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server and wait until it has ended."""
        process, self._process = self._process, None
        if process:
            process.send_signal(how)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
