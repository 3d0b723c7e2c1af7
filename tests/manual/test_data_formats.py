"""Data formats of requests and replies."""

from __future__ import annotations

import pytest

from tests.client import Client
from tests.integration.cluster import Cluster, Guests

GETS = (
    "/node",
    "/node/pvchv1",
    "/node/pvchv1/daemon-state",
    "/node/pvchv1/coordinator-state",
    "/node/pvchv1/domain-state",
    "/vm",
    "/vm/web1",
    "/vm/web1/state",
    "/vm/web1/node",
)
POSTS = (
    ("/node/pvchv1/coordinator-state", {"coordinator-state": "primary"}),
    ("/node/pvchv1/domain-state", {"domain-state": "ready"}),
    ("/vm/web1", {"autostart": ""}),
    ("/vm/web1/state", {"state": "stop"}),
)
FAILURES: tuple[tuple[str, dict[str, str]], ...] = (
    ("/node/nobody/coordinator-state", {"coordinator-state": "primary"}),
    ("/node/pvchv1/coordinator-state", {"coordinator-state": "first"}),
    ("/node/pvchv1/domain-state", {}),
    ("/vm", {}),
    ("/vm", {"xml": "<domain/>"}),
    ("/vm/nobody", {"autostart": ""}),
    ("/vm/web1", {}),
    ("/vm/web1/state", {"state": "sleep"}),
    ("/vm/web1/node", {"action": "unmigrate"}),
)


@pytest.fixture
def web1(cluster: Cluster, guests: Guests) -> Client:
    """The API with a VM whose report is complete."""
    cluster.post("/vm", xml=guests.sector("web1"))
    cluster.until(lambda: cluster.vm("web1")["updated"])
    return cluster


def test_commands_may_be_forms(web1: Client) -> None:
    body = b"--x\r\nContent-Disposition: form-data; name=selector\r\n\r\nvms\r\n--x--\r\n"
    kinds = {"application/x-www-form-urlencoded": b"selector=load", "multipart/form-data; boundary=x": body}
    for kind, data in kinds.items():
        assert web1.send("POST", "/vm/web1", body=data, headers={"Content-Type": kind}).status == 200
    assert web1.vm("web1")["node_selector"] == "vms"


@pytest.mark.parametrize("kind", ["application/json", None])
def test_a_json_client_may_send_everything_in_the_query_without_a_body(
    cluster: Cluster, guests: Guests, kind: str | None
) -> None:
    headers = {"Content-Type": kind, "Accept": kind} if kind else {}
    assert cluster.send("POST", "/vm", query={"xml": guests.sector("web2")}, headers=headers).status == 200
    query = {"selector": "load", "limit": "pvchv1", "autostart": "true"}
    assert cluster.send("POST", "/vm/web2", query=query, headers=headers).status == 200
    assert cluster.send("POST", "/vm/web2/state", query={"state": "disable"}, headers=headers).status == 200
    assert cluster.vm("web2")["state"] == "disable"


@pytest.mark.parametrize("path", GETS)
def test_a_get_answers_with_the_requested_data_as_json(web1: Client, path: str) -> None:
    reply = web1.send("GET", path)
    assert (reply.status, reply.kind) == (200, "application/json")
    assert reply.json and "message" not in reply.json
    assert "name" in (reply.json[0] if isinstance(reply.json, list) else reply.json)


def test_only_the_dump_of_a_vm_is_xml(web1: Client) -> None:
    reply = web1.send("GET", "/vm/web1/dump")
    assert (reply.status, reply.kind) == (200, "application/xml")
    assert reply.body.decode() == web1.vm("web1")["xml"]


@pytest.mark.parametrize(("path", "values"), POSTS)
def test_a_post_that_succeeds_answers_200_with_a_message(web1: Client, path: str, values: dict[str, str]) -> None:
    reply = web1.send("POST", path, form=values)
    assert (reply.status, reply.kind) == (200, "application/json")
    assert reply.json["message"].endswith(".")


@pytest.mark.parametrize(("path", "values"), FAILURES)
def test_a_post_that_fails_answers_510_with_a_message(web1: Client, path: str, values: dict[str, str]) -> None:
    before = web1.get("/vm")
    reply = web1.send("POST", path, form=values)
    assert (reply.status, reply.kind) == (510, "application/json")
    assert len(reply.json["message"].split()) > 3
    assert web1.get("/vm") == before


def test_a_put_and_a_delete_answer_like_a_post(web1: Client) -> None:
    xml = web1.vm("web1")["xml"]
    assert [web1.ask("PUT", path, xml=xml)[0] for path in ("/vm/web1", "/vm/nobody")] == [200, 510]
    assert [web1.ask("DELETE", path)[0] for path in ("/vm/web1", "/vm/web1")] == [200, 510]


@pytest.mark.parametrize("path", ["/nowhere", "/vm/", "/vm/web1/nowhere", "/node/pvchv1/state"])
def test_errors_outside_of_endpoints_are_json(web1: Client, path: str) -> None:
    reply = web1.send("GET", path)
    assert (reply.status, reply.kind, reply.code) == (404, "application/json", "not-found")
