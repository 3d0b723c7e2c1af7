"""The promises of the manual, a test for each sentence, against running servers.

Two clusters serve all tests: the sandbox (`cluster`), whose node starts real guests, and, for what takes more than one
node, the nodes hv1, hv2 and hv3 (`nodes`) with real API, agents and ZooKeeper, of which only the guests are fakes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client import Client
from tests.contract.conftest import ZooKeeperServer
from tests.servers import Api, ManyNodes, many_nodes

NODES = ("hv1", "hv2", "hv3")


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory, zookeeper: ZooKeeperServer) -> Iterator[ManyNodes]:
    with many_nodes(tmp_path_factory.mktemp("many"), zookeeper) as cluster:
        cluster.nodes(cluster.api(), *NODES)
        yield cluster


@pytest.fixture
def nodes(many: ManyNodes) -> Iterator[Client]:
    """The API of three nodes, all ready, hv1 the primary, without VMs; whose logs hold no traceback afterwards."""
    api = next(daemon for daemon in many.daemons if isinstance(daemon, Api))
    clear(api)
    yield api
    for daemon in many.daemons:
        daemon.has_not_stumbled()


def clear(api: Client) -> None:
    for vm in api.get("/vm"):
        api.ask("DELETE", f"/vm/{vm['name']}")
    assert api.get("/vm") == []
    for name in NODES:
        api.post(f"/node/{name}/domain-state", **{"domain-state": "ready"})
        api.until(lambda name=name: api.node(name)["domain_state"] == "ready")  # type: ignore[misc]
    api.until(lambda: become_primary(api, "hv1"))


def become_primary(api: Client, name: str) -> bool:
    api.ask("POST", f"/node/{name}/coordinator-state", **{"coordinator-state": "primary"})
    return bool(api.node(name)["coordinator_state"] == "primary")
