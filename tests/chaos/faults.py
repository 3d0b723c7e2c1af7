"""Random faults: each daemon of a sandbox is killed, or paused for a while, one at a time."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from typing import Any

from pvcd_plugins.sandbox.command import describe
from tests.chaos.model import Journal
from tests.integration.cluster import Cluster
from tests.integration.faults import command, processes

DNSMASQ = "dnsmasq"
BACK_SECONDS = 90.0
"""After this time, a daemon that was killed runs again, however busy the machine is."""
LONGEST_PAUSE_SECONDS = 15.0
"""Longer than a session of ZooKeeper lasts without its client, and than Ceph waits before it marks an OSD down."""


class Faults:
    """Kills and pauses the daemons of one sandbox."""

    def __init__(self, cluster: Cluster, seed: str, journal: Journal) -> None:
        self.count = 0
        self._cluster, self._journal = cluster, journal
        self._random = random.Random(f"{seed}/faults")

    def run(self, stop: threading.Event) -> None:
        """Let faults happen until they are to stop; none lasts longer than that."""
        names = sorted(server["name"] for server in self._servers())
        while not stop.wait(self._random.uniform(1.0, 6.0)):
            name, kills = self._random.choice([*names, DNSMASQ]), self._random.random() < 0.5
            pause = self._random.uniform(0.3, LONGEST_PAUSE_SECONDS)
            pid = self._pid(name)
            if pid is not None:
                self.count += 1
                self._kill(name, pid) if kills else self._pause(name, pid, pause, stop)

    def _kill(self, name: str, pid: int) -> None:
        self._journal.note(f"fault: kill {name} ({pid})")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if name != DNSMASQ:
            self.until_back(name)

    def _pause(self, name: str, pid: int, seconds: float, stop: threading.Event) -> None:
        self._journal.note(f"fault: pause {name} ({pid}) for {seconds:.1f} s")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                stop.wait(seconds)
            finally:
                os.kill(pid, signal.SIGCONT)

    def until_back(self, name: str) -> None:
        """Return when a server runs again."""
        end = time.monotonic() + BACK_SECONDS
        while not any(server["name"] == name and server["state"] == "running" for server in self._servers()):
            if time.monotonic() > end:
                self._journal.violation(f"{name} did not come back within {BACK_SECONDS:g} s")
                return
            time.sleep(0.2)

    def _servers(self) -> list[dict[str, Any]]:
        return list(describe(self._cluster.directory)["servers"])

    def _pid(self, name: str) -> int | None:
        if name != DNSMASQ:
            return next((server["pid"] for server in self._servers() if server["name"] == name), None)
        found = sorted(pid for pid in processes() if is_dnsmasq(pid, self._cluster))
        return self._random.choice(found) if found else None


def is_dnsmasq(pid: int, cluster: Cluster) -> bool:
    """Return whether a process is a dnsmasq of a sandbox."""
    argv = command(pid)
    return argv.partition(" ")[0].endswith(DNSMASQ) and str(cluster.directory) in argv
