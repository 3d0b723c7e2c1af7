"""Servers for all layers, each started once, by the first test that asks for it.

Where root may do so, all tests run in a network namespace of their own: nothing that they do concerns the host's.

The sandbox is one for all tests that only use it; each looks for tracebacks in its daemons' logs afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest

from pvcd.errors import Failed
from pvcd_plugins.sandbox import network, packages
from pvcd_plugins.sandbox.cluster import ALL
from tests.contract.conftest import ZooKeeperServer
from tests.integration.cluster import Cluster, Guests
from tests.integration.provisioner import Provisioner, prepared
from tests.lanes import (  # noqa: F401 - hooks of pytest
    pytest_collection_modifyitems,
    pytest_terminal_summary,
    pytest_xdist_make_scheduler,
)
from tests.servers import zookeeper_server

# The deadline of an example is a measure of the machine.
hypothesis.settings.register_profile("pvcd", deadline=None)
hypothesis.settings.load_profile("pvcd")


def pytest_configure() -> None:
    if os.geteuid() == 0:
        network.enter()


@pytest.fixture(scope="session")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Guests:
    need_servers()
    return Guests(tmp_path_factory.mktemp("guests"))


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    """A ZooKeeper for everything that has a chroot of its own there, and neither stops nor pauses it."""
    with zookeeper_server(tmp_path_factory.mktemp("zookeeper")) as server:
        yield server


@pytest.fixture(scope="session")
def sandbox_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    need_servers()
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    running.up()
    try:
        yield running
    finally:
        running.down()


@pytest.fixture
def watched(sandbox_cluster: Cluster) -> Iterator[Cluster]:
    """The sandbox as it is, without a traceback in its logs."""
    sandbox_cluster.tracebacks()
    yield sandbox_cluster
    assert sandbox_cluster.tracebacks() == []


@pytest.fixture
def cluster(watched: Cluster) -> Iterator[Cluster]:
    """The sandbox, without VMs before and after."""
    watched.remove_vms()
    yield watched
    watched.remove_vms()


@pytest.fixture(scope="module")
def provisioner(sandbox_cluster: Cluster, guests: Guests) -> Iterator[Provisioner]:
    """Templates, and a profile that builds the tiny guest."""
    with prepared(sandbox_cluster, guests) as made:
        yield made


@pytest.fixture
def no_vm_left(cluster: Cluster, provisioner: Provisioner) -> Iterator[None]:
    """Nothing is left of any VM after a test."""
    yield
    provisioner.clear()


def need_servers() -> None:
    """Skip where the sandbox cannot run; where CI is set that is a failure."""
    reason = "" if os.geteuid() == 0 else "the sandbox needs root"
    try:
        packages.check(ALL)
    except Failed as error:
        reason = error.sentence
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
