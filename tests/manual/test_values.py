"""The places in which values may be sent."""

from __future__ import annotations

import pytest

from tests.integration.cluster import Cluster, Guests


@pytest.fixture
def web1(cluster: Cluster, guests: Guests) -> str:
    cluster.post("/vm", xml=guests.sector("web1"))
    cluster.post("/vm", xml=guests.sector("db1"))
    return "web1"


def names(vms: list[dict[str, str]]) -> list[str]:
    return [vm["name"] for vm in vms]


def test_get_accepts_values_as_query_arguments(cluster: Cluster, web1: str) -> None:
    assert names(cluster.send("GET", "/vm", query={"limit": "web"}).json) == ["web1"]


def test_get_accepts_values_as_form_arguments(cluster: Cluster, web1: str) -> None:
    assert names(cluster.send("GET", "/vm", form={"limit": "web"}).json) == ["web1"]


def test_post_accepts_values_as_query_arguments(cluster: Cluster, web1: str) -> None:
    assert cluster.send("POST", "/vm/web1", query={"selector": "load"}).status == 200
    assert cluster.vm("web1")["node_selector"] == "load"


def test_post_accepts_values_as_form_arguments(cluster: Cluster, web1: str) -> None:
    assert cluster.send("POST", "/vm/web1", form={"selector": "load"}).status == 200
    assert cluster.vm("web1")["node_selector"] == "load"


def test_put_and_delete_accept_values_in_both_places(cluster: Cluster, web1: str) -> None:
    xml = cluster.vm("web1")["xml"]
    for place in ("query", "form"):
        one = xml.replace("<vcpu>1<", f"<description>{place}</description><vcpu>1<")
        assert cluster.send("PUT", "/vm/web1", **{place: {"xml": one}}).status == 200  # type: ignore[arg-type]
        assert cluster.vm("web1")["description"] == place
    assert cluster.send("DELETE", "/vm/web1", query={"delete_disks": ""}).status == 200
    assert cluster.send("DELETE", "/vm/db1", form={"delete_disks": ""}).status == 200


@pytest.mark.parametrize("place", ["query", "form"])
def test_an_option_is_on_if_present_without_a_value(cluster: Cluster, web1: str, place: str) -> None:
    assert cluster.vm("web1")["node_autostart"] is False
    assert cluster.send("POST", "/vm/web1", **{place: {"autostart": ""}}).status == 200  # type: ignore[arg-type]
    assert cluster.vm("web1")["node_autostart"] is True
    assert cluster.send("POST", "/vm/web1?no-autostart").status == 200
    assert cluster.vm("web1")["node_autostart"] is False
