"""The rules for nodes."""

from __future__ import annotations

from typing import Any

import pytest

from pvcd.clock import settle
from pvcd.cluster.lease import Primary, assign_primary
from pvcd.errors import Invalid, NotFound, Refused
from pvcd.testing import SimulatedCluster
from pvcd_plugins.node import service
from pvcd_plugins.node.records import CoordinatorState, DaemonState, DomainState, Node
from pvcd_plugins.node.views import node_view

from .conftest import add_node


@pytest.mark.parametrize(
    ("alive", "said", "shown"),
    [
        (True, DaemonState.INIT, DaemonState.INIT),
        (True, DaemonState.RUN, DaemonState.RUN),
        (True, DaemonState.STOP, DaemonState.STOP),
        (False, DaemonState.STOP, DaemonState.STOP),
        (False, DaemonState.RUN, DaemonState.DEAD),
        (False, DaemonState.INIT, DaemonState.DEAD),
    ],
)
async def test_a_node_without_presence_is_dead_unless_it_reported_its_end(
    cluster: SimulatedCluster, alive: bool, said: DaemonState, shown: DaemonState
) -> None:
    await add_node(cluster, "hv1", alive=alive, report={"daemon_state": said})
    assert service.daemon_state(cluster.api, service.find(cluster.api, "hv1")) is shown


@pytest.mark.parametrize(
    ("wanted", "generation", "settled", "shown"),
    [
        (DomainState.READY, 0, 0, DomainState.READY),
        (DomainState.READY, 0, None, DomainState.UNFLUSH),
        (DomainState.FLUSH, 1, 0, DomainState.FLUSH),
        (DomainState.FLUSH, 1, 1, DomainState.FLUSHED),
        (DomainState.FLUSH, 3, 2, DomainState.FLUSH),
        (DomainState.READY, 2, 1, DomainState.UNFLUSH),
        (DomainState.READY, 2, 2, DomainState.READY),
    ],
)
async def test_a_domain_state_is_on_the_way_until_the_node_has_done_it(
    cluster: SimulatedCluster, wanted: DomainState, generation: int, settled: int | None, shown: DomainState
) -> None:
    await add_node(
        cluster, "hv1", node={"domain_state": wanted, "generation": generation}, report={"settled_generation": settled}
    )
    node = service.find(cluster.api, "hv1")
    assert service.domain_state(cluster.api, node) is shown
    assert service.takes_vms(cluster.api, node) is (shown is DomainState.READY)


@pytest.mark.parametrize("daemon", [DaemonState.INIT, DaemonState.STOP])
async def test_only_a_running_node_takes_vms(cluster: SimulatedCluster, daemon: DaemonState) -> None:
    await add_node(cluster, "hv1", report={"daemon_state": daemon})
    await add_node(cluster, "hv2", alive=False)
    for name in ("hv1", "hv2"):
        assert not service.takes_vms(cluster.api, service.find(cluster.api, name))


async def test_nodes_are_found_by_their_exact_name(cluster: SimulatedCluster) -> None:
    await add_node(cluster, "hv10")
    assert service.find(cluster.api, "hv10").name == "hv10"
    for name in ("hv1", "hv", "HV10", "hv10/report", "", "../nodes/hv10"):
        with pytest.raises(NotFound):
            service.find(cluster.api, name)


async def test_nodes_are_listed_by_name_and_limited_by_an_expression(cluster: SimulatedCluster) -> None:
    for name in ("hv2", "hv10", "hv1"):
        await add_node(cluster, name)

    async def names(**values: str) -> list[str]:
        query = "".join(f"?{key}={value}" for key, value in values.items())
        reply = await cluster.request("GET", f"/api/v1/node{query}")
        assert reply.status == 200
        return [node["name"] for node in reply.json]

    assert await names() == ["hv1", "hv10", "hv2"]
    assert await names(limit="hv1") == ["hv1", "hv10"]
    assert await names(limit="nothing") == []
    reply = await cluster.request("GET", "/api/v1/node?limit=(")
    assert (reply.status, reply.json["code"]) == (510, Invalid.code)


async def test_a_node_without_facts_is_shown_with_zeros(cluster: SimulatedCluster) -> None:
    await add_node(cluster, "hv1", report={"facts": {}})
    shown = node_view(cluster.api, service.find(cluster.api, "hv1")).model_dump()
    assert shown["cpu_count"] == shown["load"] == shown["domains_count"] == 0
    assert shown["memory"] == {"total": 0, "allocated": 0, "used": 0, "free": 0}
    assert shown["running_domains"] == []


async def test_a_fact_that_is_not_a_table_is_ignored(cluster: SimulatedCluster) -> None:
    await add_node(cluster, "hv1", report={"facts": {"machine": None, "domains": "odd"}})
    assert node_view(cluster.api, service.find(cluster.api, "hv1")).cpu_count == 0


async def test_a_node_is_shown_with_its_facts(cluster: SimulatedCluster) -> None:
    machine = {"cpu_count": 8, "kernel": "6.1", "os": "GNU/Linux", "arch": "x86_64", "load": 0.5}
    memory = {"memory_total": 16000, "memory_used": 5000, "memory_free": 9000}
    domains = {"running": ["a", "b"], "memory": 3000, "vcpus": 5}
    await add_node(cluster, "hv1", report={"facts": {"machine": machine | memory, "domains": domains}})
    reply = await cluster.request("GET", "/api/v1/node/hv1")
    assert reply.json == [
        {
            "name": "hv1",
            "daemon_state": "run",
            "coordinator_state": "secondary",
            "domain_state": "ready",
            "cpu_count": 8,
            "kernel": "6.1",
            "os": "GNU/Linux",
            "arch": "x86_64",
            "load": 0.5,
            "domains_count": 2,
            "running_domains": ["a", "b"],
            "vcpu": {"total": 8, "allocated": 5},
            "memory": {"total": 16000, "allocated": 3000, "used": 5000, "free": 9000},
        }
    ]


async def set_domain(cluster: SimulatedCluster, wanted: DomainState) -> tuple[Any, Node]:
    message = await service.set_domain_state(cluster.api, "hv1", wanted)
    return message, service.find(cluster.api, "hv1")


async def test_each_request_for_a_domain_state_has_its_own_generation(cluster: SimulatedCluster) -> None:
    await add_node(cluster, "hv1")
    _, node = await set_domain(cluster, DomainState.FLUSH)
    assert (node.domain_state, node.generation) == (DomainState.FLUSH, 1)
    _, node = await set_domain(cluster, DomainState.FLUSH)
    assert node.generation == 2, "an unfinished request must start again"
    _, node = await set_domain(cluster, DomainState.READY)
    assert (node.domain_state, node.generation) == (DomainState.READY, 3)


async def test_a_domain_state_that_is_reached_is_not_requested_again(cluster: SimulatedCluster) -> None:
    await add_node(cluster, "hv1")
    message, node = await set_domain(cluster, DomainState.READY)
    assert (message.message, node.generation) == ("Node 'hv1' is already ready.", 0)


async def test_a_request_to_a_node_that_does_not_run_returns_a_warning(cluster: SimulatedCluster) -> None:
    await add_node(cluster, "hv1", alive=False)
    message, node = await set_domain(cluster, DomainState.FLUSH)
    assert node.generation == 1
    assert message.warnings == ["Node 'hv1' is in daemon state 'dead'. It acts on the request when it runs."]


async def test_the_holder_of_the_lease_is_primary(cluster: SimulatedCluster) -> None:
    await add_node(cluster, "hv1")
    await add_node(cluster, "hv2", node={"coordinator": False})
    await add_node(cluster, "hv3", alive=False)

    def states() -> list[str]:
        nodes = cluster.api.store.all(Node)
        return [service.coordinator_state(cluster.api, node).value for node in nodes]

    assert states() == ["secondary", "client", "secondary"]
    await assign_primary(cluster.api.store, "hv1")
    assert states() == ["primary", "client", "secondary"]
    await assign_primary(cluster.api.store, "hv3")
    assert states() == ["secondary", "client", "secondary"], "a dead node is not primary"


async def set_coordinator(cluster: SimulatedCluster, name: str, wanted: CoordinatorState) -> str | None:
    await service.set_coordinator_state(cluster.api, name, wanted)
    await settle()
    lease = cluster.api.store.get(Primary)
    return lease.node if lease else None


async def test_the_primary_moves_to_a_running_coordinator_and_away_from_it(cluster: SimulatedCluster) -> None:
    for name in ("hv1", "hv2"):
        await add_node(cluster, name)
    assert await set_coordinator(cluster, "hv2", CoordinatorState.PRIMARY) == "hv2"
    assert await set_coordinator(cluster, "hv2", CoordinatorState.PRIMARY) == "hv2"
    assert await set_coordinator(cluster, "hv1", CoordinatorState.SECONDARY) == "hv2"
    assert await set_coordinator(cluster, "hv2", CoordinatorState.SECONDARY) == "hv1"


async def test_a_node_that_cannot_be_primary_is_refused(cluster: SimulatedCluster) -> None:
    await add_node(cluster, "hv1")
    await add_node(cluster, "client", node={"coordinator": False})
    await add_node(cluster, "dead", alive=False)
    await add_node(cluster, "starting", report={"daemon_state": DaemonState.INIT})
    await assign_primary(cluster.api.store, "hv1")
    for name, wanted, code in [
        ("client", CoordinatorState.PRIMARY, "not-a-coordinator"),
        ("client", CoordinatorState.SECONDARY, "not-a-coordinator"),
        ("dead", CoordinatorState.PRIMARY, "node-not-running"),
        ("starting", CoordinatorState.PRIMARY, "node-not-running"),
        ("hv1", CoordinatorState.SECONDARY, "no-other-coordinator"),
        ("hv9", CoordinatorState.PRIMARY, "node-not-found"),
    ]:
        with pytest.raises(Refused) as refused:
            await service.set_coordinator_state(cluster.api, name, wanted)
        assert refused.value.code == code
    lease = cluster.api.store.get(Primary)
    assert lease is not None
    assert lease.node == "hv1"
