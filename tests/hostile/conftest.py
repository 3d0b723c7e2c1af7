"""Clients that mean harm, against the real running daemons."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.client import Client
from tests.integration.cluster import Cluster, Guests
from tests.kept import Kept

HANG = 5.0
"""Seconds that no request may take; a tenth of one does, where the machine has nothing else to do."""


@pytest.fixture(scope="module")
def web1(sandbox_cluster: Cluster, guests: Guests) -> Iterator[Kept]:
    """A VM of the sandbox that all tests of a module share."""
    cluster = sandbox_cluster

    def make() -> None:
        cluster.post("/vm", xml=guests.sector("web1"))
        cluster.until(lambda: cluster.vm("web1")["updated"])

    kept = Kept(make, cluster.remove_vms, lambda: remembered(cluster))
    yield kept
    kept.remove()


@pytest.fixture
def victim(watched: Cluster, web1: Kept) -> Iterator[Cluster]:
    """The sandbox with a VM, of which nothing has changed in the end."""
    with web1.unchanged():
        yield watched


def remembered(cluster: Cluster) -> Any:
    """Return the records of the cluster, without those that change by themselves."""
    nodes = [{key: node[key] for key in ("name", "coordinator_state", "domain_state")} for node in cluster.get("/node")]
    return cluster.get("/vm"), nodes


def latencies(api: Client, path: str) -> Iterator[float]:
    """Seconds that others wait for an answer."""
    while True:
        begun = time.monotonic()
        assert api.send("GET", path).status == 200
        yield time.monotonic() - begun
        time.sleep(0.01)
