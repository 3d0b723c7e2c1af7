"""Real guests in a network of the sandbox get their addresses, are shown with them, and keep their network."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from pvcd_plugins.sandbox import guest
from tests.integration.cluster import Cluster, Guests

MAC = "52:54:00:00:02:01"
NETWORK = {
    "vni": 210,
    "description": "guests",
    "nettype": "managed",
    "domain": "guests.example",
    "ip4_network": "10.21.0.0/24",
    "ip4_gateway": "10.21.0.1",
    "dhcp4": "true",
    "dhcp4_start": "10.21.0.100",
    "dhcp4_end": "10.21.0.199",
}


@pytest.fixture
def network(cluster: Cluster) -> Iterator[str]:
    """The bridge of a network that goes after the VMs have gone."""
    cluster.post("/network", **NETWORK)
    yield "vmbr210"
    for vm in cluster.get("/vm"):
        cluster.delete(f"/vm/{vm['name']}")
    cluster.delete("/network/guests")


def in_network(guests: Guests, name: str, bridge: str) -> str:
    files = guests.tiny
    return guest.tiny_domain(name, uuid4(), files.kernel, files.initrd, "qemu", interfaces={MAC: bridge})


def test_a_guest_gets_its_reserved_address_and_is_shown_with_it(cluster: Cluster, guests: Guests, network: str) -> None:
    cluster.post("/network/guests/lease", macaddress=MAC, ipaddress="10.21.0.10", hostname="web")
    cluster.post("/vm", xml=in_network(guests, "web", network))
    assert cluster.vm("web")["networks"][0]["ip4_address"] is None
    cluster.post("/vm/web/state", state="start")
    cluster.until(lambda: cluster.vm("web")["networks"][0]["ip4_address"] == "10.21.0.10", 60)
    assert cluster.vm("web")["networks"][0]["mac"] == MAC
    cluster.until(lambda: "address 10.21.0.10" in cluster.get("/vm/web/console", lines=100)["data"], 60)


def test_a_vm_of_an_unknown_network_is_refused(cluster: Cluster, guests: Guests) -> None:
    status, body = cluster.ask("POST", "/vm", xml=in_network(guests, "lost", "vmbr4000"))
    assert status == 510 and "vmbr4000" in body["message"]
    assert cluster.get("/vm") == []


def test_a_network_in_use_by_a_vm_is_not_removed(cluster: Cluster, guests: Guests, network: str) -> None:
    cluster.post("/vm", xml=in_network(guests, "user", network))
    assert cluster.refused("DELETE", "/network/guests") == "network-in-use"
    assert cluster.get("/network/guests")[0]["removing"] is False
    cluster.delete("/vm/user")
    cluster.until(lambda: cluster.get("/vm") == [])
