"""Several API processes on one port."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvcd_plugins.sandbox.state import ProcessId, runs, start_time
from tests.client import Client
from tests.contract.conftest import ZooKeeperServer, free_ports
from tests.servers import Daemon, settings


class ApiProcesses(Daemon, Client):
    """`pvcd api --workers 2`."""

    def __init__(self, folder: Path, zookeeper: str) -> None:
        port = free_ports(1)[0]
        Daemon.__init__(self, folder, settings(zookeeper, port), "pvcd", "api", "--workers", "2")
        Client.__init__(self, f"http://127.0.0.1:{port}/api/v1")

    def children(self) -> set[int]:
        return {int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()}

    def answers(self) -> bool:
        try:
            return self.send("GET", "").status == 209
        except OSError:
            return False


@pytest.fixture
def processes(tmp_path: Path, zookeeper: ZooKeeperServer) -> Iterator[ApiProcesses]:
    started = ApiProcesses(tmp_path, zookeeper.hosts)
    started.launch()
    try:
        started.until(started.answers, 30)
        started.until(lambda: len(started.children()) == 2, 30)
        yield started
        started.has_not_stumbled()
    finally:
        started.stop()


def test_a_killed_api_process_is_restarted_while_the_other_answers(processes: ApiProcesses) -> None:
    before = processes.children()
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    processes.until(lambda: len(processes.children()) == 2 and victim not in processes.children(), 30)
    assert processes.children() & before
    processes.until(processes.answers, 10)


def test_api_processes_end_together(processes: ApiProcesses) -> None:
    children = [ProcessId(pid, start_time(pid)) for pid in processes.children()]
    assert children and processes.stop() == 0
    assert not any(map(runs, children))
    processes.launch()


def test_wrong_settings_end_all_api_processes_with_2(tmp_path: Path) -> None:
    daemon = ApiProcesses(tmp_path, "127.0.0.1:2181")
    daemon.file.write_text("pvc: {}\n")
    daemon.launch()
    assert daemon.process is not None
    assert daemon.process.wait(30) == 2
    assert "pvc.coordinators: this setting is required." in daemon.log
    daemon.stop()
