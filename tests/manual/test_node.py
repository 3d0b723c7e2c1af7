"""Node endpoints."""

from __future__ import annotations

import pytest

from tests.client import Client
from tests.integration.cluster import Cluster, Guests
from tests.servers import Api, ManyNodes

FIELDS = {
    "name": str,
    "daemon_state": str,
    "coordinator_state": str,
    "domain_state": str,
    "cpu_count": int,
    "kernel": str,
    "os": str,
    "arch": str,
    "load": float,
    "domains_count": int,
    "running_domains": list,
    "vcpu": dict,
    "memory": dict,
}


def names(nodes: list[dict[str, str]]) -> list[str]:
    return [node["name"] for node in nodes]


def coordinator_state(api: Client, node: str) -> str:
    return str(api.get(f"/node/{node}/coordinator-state")["coordinator_state"])


def domain_state(api: Client, node: str) -> str:
    return str(api.get(f"/node/{node}/domain-state")["domain_state"])


# /node


def test_the_list_contains_all_nodes(nodes: Client) -> None:
    assert names(nodes.get("/node")) == ["hv1", "hv2", "hv3"]


def test_the_list_shows_the_facts_and_states_of_each_node(cluster: Cluster) -> None:
    (node,) = cluster.get("/node")
    assert {key: type(value) for key, value in node.items()} == FIELDS
    assert (node["daemon_state"], node["coordinator_state"], node["domain_state"]) == ("run", "primary", "ready")
    assert (node["vcpu"]["total"], node["os"]) == (node["cpu_count"], "GNU/Linux")
    assert node["memory"]["total"] > 100 and node["load"] >= 0


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("hv1", ["hv1"]),
        ("v", ["hv1", "hv2", "hv3"]),
        ("2", ["hv2"]),
        ("hv[12]", ["hv1", "hv2"]),
        ("^h.*3$", ["hv3"]),
        ("^v", []),
        ("hv$", []),
        ("nothing", []),
    ],
)
def test_the_limit_of_the_list_is_a_fuzzy_regex_for_names(nodes: Client, limit: str, expected: list[str]) -> None:
    assert names(nodes.get("/node", limit=limit)) == expected


def test_a_limit_must_be_a_regular_expression(nodes: Client) -> None:
    assert nodes.refused("GET", "/node", limit="(") == "invalid-value"


def test_the_list_requires_no_value(nodes: Client) -> None:
    assert nodes.send("GET", "/node").status == 200


# /node/<node>


def test_a_node_is_shown_as_in_the_list(nodes: Client) -> None:
    def told(path: str, **values: str) -> list[dict[str, object]]:
        return [{key: value for key, value in node.items() if key != "load"} for node in nodes.get(path, **values)]

    assert told("/node/hv1") == told("/node", limit="hv1") and told("/node/hv1")


@pytest.mark.parametrize("name", ["hv", "v1", "hv11", "hv.", "^hv1$", "HV1"])
def test_a_node_is_found_without_fuzzy_matching(nodes: Client, name: str) -> None:
    for path in ("", "/daemon-state", "/coordinator-state", "/domain-state"):
        assert nodes.refused("GET", f"/node/{name}{path}") == "node-not-found"


def test_nodes_are_created_when_their_daemon_starts(many: ManyNodes, nodes: Client) -> None:
    assert nodes.refused("GET", "/node/hv4") == "node-not-found"
    assert isinstance(nodes, Api)
    daemon = many.nodes(nodes, "hv4")
    try:
        node = nodes.node("hv4")
        assert (node["daemon_state"], node["coordinator_state"], node["domain_state"]) == ("run", "client", "ready")
        for wanted in ("primary", "secondary"):
            values = {"coordinator-state": wanted}
            assert nodes.refused("POST", "/node/hv4/coordinator-state", **values) == "not-a-coordinator"
    finally:
        daemon.stop()
    assert nodes.get("/node/hv4/daemon-state") == {"name": "hv4", "daemon_state": "stop"}


def test_nodes_cannot_be_created_by_clients(nodes: Client) -> None:
    before = names(nodes.get("/node"))
    for method, path in (("POST", "/node"), ("PUT", "/node"), ("POST", "/node/hv9"), ("PUT", "/node/hv9")):
        assert nodes.send(method, path).status == 405
    assert nodes.refused("POST", "/node/hv9/domain-state", **{"domain-state": "ready"}) == "node-not-found"
    assert names(nodes.get("/node")) == before


# /node/<node>/daemon-state


def test_the_daemon_state_of_a_node_is_shown(cluster: Cluster) -> None:
    assert cluster.get("/node/pvchv1/daemon-state") == {"name": "pvchv1", "daemon_state": "run"}


def test_the_daemon_state_cannot_be_set(cluster: Cluster) -> None:
    assert cluster.send("POST", "/node/pvchv1/daemon-state", form={"daemon-state": "stop"}).status == 405


# /node/<node>/coordinator-state


def test_the_coordinator_state_of_a_node_is_shown(nodes: Client) -> None:
    assert nodes.get("/node/hv1/coordinator-state") == {"name": "hv1", "coordinator_state": "primary"}
    assert nodes.get("/node/hv2/coordinator-state") == {"name": "hv2", "coordinator_state": "secondary"}


def test_setting_a_node_to_primary_makes_the_former_primary_secondary(nodes: Client) -> None:
    nodes.post("/node/hv2/coordinator-state", **{"coordinator-state": "primary"})
    nodes.until(lambda: coordinator_state(nodes, "hv2") == "primary")
    assert coordinator_state(nodes, "hv1") == "secondary"


def test_setting_the_primary_to_secondary_makes_another_node_primary(nodes: Client) -> None:
    nodes.post("/node/hv1/coordinator-state", **{"coordinator-state": "secondary"})
    nodes.until(lambda: coordinator_state(nodes, "hv1") == "secondary")
    nodes.until(lambda: "primary" in [coordinator_state(nodes, name) for name in ("hv2", "hv3")])


def test_setting_a_coordinator_state_again_has_no_effect(nodes: Client) -> None:
    for name, state in (("hv1", "primary"), ("hv2", "secondary")):
        before = [coordinator_state(nodes, each) for each in ("hv1", "hv2", "hv3")]
        reply = nodes.post(f"/node/{name}/coordinator-state", **{"coordinator-state": state})
        assert reply == {"message": f"Node {name} is {state} already."}
        assert [coordinator_state(nodes, each) for each in ("hv1", "hv2", "hv3")] == before


def test_the_value_coordinator_state_is_mandatory(nodes: Client) -> None:
    status, body = nodes.ask("POST", "/node/hv1/coordinator-state")
    assert (status, body["message"]) == (510, "The argument 'coordinator-state' is missing.")


@pytest.mark.parametrize("state", ["client", "Primary", "", "first", "primary,secondary"])
def test_coordinator_states_other_than_primary_and_secondary_are_not_valid(nodes: Client, state: str) -> None:
    status, body = nodes.ask("POST", "/node/hv1/coordinator-state", **{"coordinator-state": state})
    assert (status, body["code"]) == (510, "invalid-value")
    assert "primary" in body["message"]


# /node/<node>/domain-state


def test_the_domain_state_of_a_node_is_shown(cluster: Cluster) -> None:
    assert cluster.get("/node/pvchv1/domain-state") == {"name": "pvchv1", "domain_state": "ready"}


def test_a_node_is_set_to_flush_and_to_ready(nodes: Client) -> None:
    nodes.post("/node/hv2/domain-state", **{"domain-state": "flush"})
    nodes.until(lambda: domain_state(nodes, "hv2") == "flushed")
    assert domain_state(nodes, "hv1") == "ready"
    nodes.post("/node/hv2/domain-state", **{"domain-state": "ready"})
    nodes.until(lambda: domain_state(nodes, "hv2") == "ready")


@pytest.mark.parametrize(("asked", "settled"), [("ready", "ready"), ("flush", "flushed")])
def test_setting_a_domain_state_again_has_no_effect_once_it_is_reached(nodes: Client, asked: str, settled: str) -> None:
    nodes.post("/node/hv3/domain-state", **{"domain-state": asked})
    nodes.until(lambda: domain_state(nodes, "hv3") == settled)
    again = nodes.post("/node/hv3/domain-state", **{"domain-state": asked})
    assert again == {"message": f"Node hv3 is {settled} already."}
    assert domain_state(nodes, "hv3") == settled


def test_setting_a_domain_state_again_restarts_an_unfinished_transition(cluster: Cluster, guests: Guests) -> None:
    flush = {"domain-state": "flush"}
    cluster.post("/vm", xml=guests.sector("deaf"))
    cluster.post("/vm/deaf/state", state="start")
    cluster.until_state("deaf", "start", True)
    try:
        cluster.post("/node/pvchv1/domain-state", **flush)
        cluster.until_state("deaf", "shutdown", True)
        assert domain_state(cluster, "pvchv1") == "flush", "its guest does not react to the power button"
        again = cluster.post("/node/pvchv1/domain-state", **flush)
        assert again == {"message": "Domain state 'flush' requested for node 'pvchv1'."}
        cluster.post("/vm/deaf/state", state="stop")
        cluster.until(lambda: domain_state(cluster, "pvchv1") == "flushed")
    finally:
        cluster.post("/node/pvchv1/domain-state", **{"domain-state": "ready"})
        cluster.until(lambda: domain_state(cluster, "pvchv1") == "ready")


def test_the_value_domain_state_is_mandatory(cluster: Cluster) -> None:
    status, body = cluster.ask("POST", "/node/pvchv1/domain-state")
    assert (status, body["message"]) == (510, "The argument 'domain-state' is missing.")


@pytest.mark.parametrize("state", ["flushed", "unflush", "READY", "", "primary"])
def test_domain_states_other_than_flush_and_ready_are_not_valid(cluster: Cluster, state: str) -> None:
    status, body = cluster.ask("POST", "/node/pvchv1/domain-state", **{"domain-state": state})
    assert (status, body["code"]) == (510, "invalid-value")
    assert "flush" in body["message"]
    assert domain_state(cluster, "pvchv1") == "ready"
