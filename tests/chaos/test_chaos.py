"""Random clients under random faults: no acknowledged change is lost, nothing is left, and no VM runs twice.

The seed is printed. CHAOS_SEED repeats its operations and faults, though not their timing; CHAOS_SECONDS is the
duration.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.chaos.checkers import Checker, bridges, watch_guests, watchers
from tests.chaos.faults import Faults
from tests.chaos.model import Journal, Outcome
from tests.chaos.operations import PROFILE, SNAPSHOTS, VOLUMES, RandomClient, add_network, add_volume, build, define
from tests.integration.cluster import Cluster, Guests
from tests.integration.provisioner import Provisioner
from tests.integration.traces import Before, Traces

SEED = os.environ.get("CHAOS_SEED") or secrets.token_hex(4)
SECONDS = float(os.environ.get("CHAOS_SECONDS", "180"))
CLIENTS = 2
SETTLE_SECONDS = 240.0
"""A guest that ignores its power button is stopped after 90 s, and each server may have been killed just now."""
KINDS = ("/vm", "/network", "/storage/ceph/volume", "/storage/ceph/volume/snapshot")
SCRIPT = "def install(**kwargs):\n    print('built')\n"


@pytest.fixture
def chaos_cluster(tmp_path_factory: pytest.TempPathFactory, guests: Guests) -> Iterator[Cluster]:
    """A sandbox of its own, with a profile that builds a VM with one small disk."""
    cluster = Cluster(tmp_path_factory.mktemp("chaos"))
    cluster.up()
    try:
        made = Provisioner(cluster)
        at = "/provisioner/template"
        cluster.post(f"{at}/system", name="small", vcpus=1, vram=16, serial="true")
        cluster.post(f"{at}/network", name="none")
        cluster.post(f"{at}/storage", name="root")
        cluster.post(f"{at}/storage/root/disk", disk_id="sda", pool="vms", disk_size=1)
        made.script(PROFILE, SCRIPT, network_template="none")
        yield cluster
    finally:
        cluster.down()


@pytest.mark.timeout(SECONDS + 2 * SETTLE_SECONDS + 120)
def test_nothing_is_lost_or_left_and_no_vm_runs_twice(chaos_cluster: Cluster, guests: Guests) -> None:
    print(f"CHAOS_SEED={SEED} CHAOS_SECONDS={SECONDS:g}")
    cluster, journal = chaos_cluster, Journal()
    clients = [RandomClient(cluster.api, SEED, number, guests, journal) for number in range(CLIENTS)]
    checker, faults = Checker(cluster, clients), Faults(cluster, SEED, journal)
    before = used_once(cluster, guests, journal)
    over, settled = threading.Event(), threading.Event()
    threads = [Thread(journal, client.run, over) for client in clients]
    threads.append(Thread(journal, faults.run, over))
    watch = Thread(journal, lambda end: watch_guests(cluster, journal, end), settled)
    over.wait(SECONDS)
    over.set()
    for thread in threads:
        thread.join()
    journal.note("faults and requests have ended")
    try:
        until_none(journal, checker.problems)
        until_none(journal, lambda: remove_all(cluster, journal) or checker.left(before))
    finally:
        settled.set()
        watch.join()
        print("\n".join(journal.lines))
    summary = f"CHAOS_SEED={SEED}: {faults.count} faults, {dict(journal.counts)}"
    print(summary)
    assert not journal.violations, "\n".join([summary, *journal.violations])
    assert cluster.tracebacks() == []
    assert journal.counts[Outcome.ACKNOWLEDGED] and faults.count


class Thread(threading.Thread):
    """Runs a part of the test; its failure is a violation."""

    def __init__(self, journal: Journal, part: Callable[[threading.Event], None], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._journal, self._part, self._stop_event = journal, part, stop
        self.start()

    def run(self) -> None:
        try:
            self._part(self._stop_event)
        except Exception as error:
            self._journal.violation(f"the test itself failed: {error!r}")
            raise


def used_once(cluster: Cluster, guests: Guests, journal: Journal) -> Traces:
    """Return all that is there after one thing of each kind has come and gone: some records stay from then on."""
    client = RandomClient(cluster.api, SEED, CLIENTS, guests, journal)
    for make in (add_network, add_volume, define, build):
        request = make(client)
        assert request is not None and client.perform(request) is Outcome.ACKNOWLEDGED
    checker = Checker(cluster, [client])
    until_none(journal, checker.problems)
    remove_all(cluster, journal)
    until_none(journal, lambda: [path for path in KINDS if cluster.get(path)])
    until_none(journal, bridges)
    assert not journal.violations, journal.violations
    return Before(cluster).traces


def until_none(journal: Journal, problems: Callable[[], list[str]]) -> None:
    """Wait until there are no problems; those that remain are violations."""
    end, noted = time.monotonic() + SETTLE_SECONDS, None
    while found := problems():
        if found != noted:
            journal.note(f"not yet: {found}")
            noted = found
        if time.monotonic() > end:
            for problem in found:
                journal.violation(problem)
            return
        time.sleep(2)


def remove_all(cluster: Cluster, journal: Journal) -> None:
    """Remove everything by the API; what is refused is tried again, and found at last."""
    snapshots, volumes = (cluster.get(f"/storage/ceph/volume{part}") for part in ("/snapshot", ""))
    paths = [
        *(f"/vm/{vm['name']}" for vm in cluster.get("/vm")),
        *(f"{SNAPSHOTS}{each['volume']}/{each['snapshot']}" for each in snapshots),
        *(VOLUMES + each["name"] for each in volumes),
        *(f"/network/{network['description']}" for network in cluster.get("/network")),
    ]
    for path in paths:
        status, answer = cluster.ask("DELETE", path)
        journal.note(f"DELETE {path}: {status, answer}")
        if answer and answer.get("code") == "volume-in-use":
            journal.note(f"its clients: {watchers(cluster, path.removeprefix(VOLUMES))}")
