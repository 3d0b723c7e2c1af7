"""General endpoints; those for sessions are tested in tests/contract/test_auth.py."""

from __future__ import annotations

from tests.integration.cluster import Cluster


def test_the_root_describes_the_api_with_status_209(cluster: Cluster) -> None:
    reply = cluster.send("GET", "")
    assert (reply.status, reply.kind) == (209, "application/json")
    assert list(reply.json) == ["message"]
    assert "PVC API" in reply.json["message"]


def test_the_root_requires_no_value(cluster: Cluster) -> None:
    assert cluster.send("GET", "", query={"token": "x"}).status == 510
    assert cluster.send("GET", "").status == 209


def test_the_root_accepts_only_get(cluster: Cluster) -> None:
    for method in ("POST", "PUT", "DELETE"):
        reply = cluster.send(method, "")
        assert (reply.status, reply.code) == (405, "method-not-allowed")
        assert reply.headers["Allow"] == "GET,HEAD"
