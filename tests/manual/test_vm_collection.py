"""VM endpoints: the list, and defining."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tests.client import Client
from tests.integration.cluster import Cluster, Guests
from tests.servers import definition

FIELDS = [
    *("name", "uuid", "state", "running", "node", "last_node", "migrated", "failed_reason", "updated"),
    *("node_limit", "node_selector", "node_autostart", "description", "profile", "memory", "vcpu", "vcpu_topology"),
    *("type", "arch", "machine", "console", "emulator", "features", "networks", "disks", "controllers", "xml"),
]


def define(api: Client, name: str, *, memory: int = 64, vcpus: int = 1, **values: str) -> dict[str, object]:
    """Define a VM, and return the reply."""
    reply: dict[str, object] = api.post("/vm", xml=definition(name, memory=memory, vcpus=vcpus), **values)
    return reply


def start(api: Client, *names: str) -> None:
    for name in names:
        api.post(f"/vm/{name}/state", state="start")
        api.until_state(name, "start", True)


def node_of(api: Client, name: str) -> str:
    return str(api.get(f"/vm/{name}/node")["node"])


def names(vms: list[dict[str, str]]) -> list[str]:
    return [vm["name"] for vm in vms]


# GET


def test_the_list_contains_all_vms_of_the_cluster(nodes: Client) -> None:
    for number, name in enumerate(["web2", "db1", "web1"], 1):
        define(nodes, name, node=f"hv{number}")
    assert [(vm["name"], vm["node"]) for vm in nodes.get("/vm")] == [("db1", "hv2"), ("web1", "hv3"), ("web2", "hv1")]


def test_the_list_without_vms_is_empty(nodes: Client) -> None:
    assert nodes.get("/vm") == []


def test_the_list_shows_the_definition_and_state_of_each_vm(cluster: Cluster, guests: Guests) -> None:
    xml = guests.sector("web1")
    cluster.post("/vm", xml=xml)
    (vm,) = cluster.get("/vm")
    assert list(vm) == FIELDS
    assert (vm["name"], vm["state"], vm["running"], vm["node"]) == ("web1", "stop", False, "pvchv1")
    assert (vm["last_node"], vm["migrated"], vm["failed_reason"], vm["node_limit"]) == (None, "no", None, None)
    assert (vm["node_selector"], vm["node_autostart"], vm["profile"]) == ("mem", False, None)
    assert (vm["memory"], vm["vcpu"], vm["type"], vm["arch"]) == (16, 1, "hvm", "x86_64")
    assert vm["disks"] == [{"type": "file", "name": str(guests.directory / "web1.img"), "dev": "vda", "bus": "virtio"}]
    assert (vm["xml"], vm["uuid"]) == (xml, str(UUID(vm["uuid"])))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("web1", ["web1", "web10"]),
        ("eb", ["web1", "web10", "web2"]),
        ("1", ["db1", "web1", "web10"]),
        ("^web1$", ["web1"]),
        ("web(1|2)$", ["web1", "web2"]),
        ("^b", []),
        ("(?i)WEB2", ["web2"]),
    ],
)
def test_the_limit_of_the_list_is_a_fuzzy_regex_for_names(nodes: Client, limit: str, expected: list[str]) -> None:
    for name, number in (("web1", 2), ("web10", 3), ("web2", 4), ("db1", 5)):
        nodes.post("/vm", xml=definition(name, uuid=UUID(f"{'f' * 8}-ffff-4fff-8fff-{'f' * 11}{number}")))
    assert names(nodes.get("/vm", limit=limit)) == expected


def test_a_limit_must_be_a_regular_expression(nodes: Client) -> None:
    assert nodes.refused("GET", "/vm", limit="[") == "invalid-value"


# POST


def test_a_vm_is_defined_from_xml_of_several_lines(cluster: Cluster, guests: Guests) -> None:
    xml = guests.sector("web1")
    assert xml.count("\n") > 20
    cluster.post("/vm", xml=xml)
    assert cluster.vm("web1")["xml"] == xml


def test_a_vm_is_defined_from_xml_of_a_single_line(cluster: Cluster, guests: Guests) -> None:
    xml = "".join(line.strip() for line in guests.sector("web1").splitlines())
    assert "\n" not in xml
    cluster.post("/vm", xml=xml)
    assert cluster.vm("web1")["xml"] == xml


def test_the_value_xml_is_mandatory(nodes: Client) -> None:
    status, body = nodes.ask("POST", "/vm", node="hv1")
    assert (status, body["message"]) == (510, "The argument 'xml' is missing.")


@pytest.mark.parametrize("xml", ["", "web1", "<domain>", "<network/>", "<domain type='qemu'><name>a</name></domain>"])
def test_xml_must_define_a_vm(nodes: Client, xml: str) -> None:
    assert nodes.refused("POST", "/vm", xml=xml) == "invalid-value"
    assert nodes.get("/vm") == []


def test_a_vm_is_defined_on_the_requested_node(nodes: Client) -> None:
    for name in ("hv3", "hv2", "hv1"):
        assert "warnings" not in define(nodes, f"on-{name}", node=name)
        assert node_of(nodes, f"on-{name}") == name


@pytest.mark.parametrize("node", ["hv9", "HV1", "", "hv1,hv2"])
def test_an_invalid_node_is_replaced_by_an_automatic_choice(nodes: Client, node: str) -> None:
    define(nodes, "first", node="hv1")
    reply = define(nodes, "web1", node=node)
    assert node_of(nodes, "web1") == "hv2", "which has fewer VMs than hv1"
    assert not node or f"chosen instead of {node!r}" in str(reply["warnings"])


def test_a_node_that_accepts_no_vms_is_invalid(nodes: Client) -> None:
    nodes.post("/node/hv1/domain-state", **{"domain-state": "flush"})
    assert "hv1" in str(define(nodes, "web1", node="hv1")["warnings"])
    assert node_of(nodes, "web1") == "hv2"


def test_without_a_node_one_is_chosen_automatically(nodes: Client) -> None:
    for number in range(3):
        define(nodes, f"web{number}")
    assert [node_of(nodes, f"web{number}") for number in range(3)] == ["hv1", "hv2", "hv3"]


def test_a_limit_excludes_all_other_nodes(nodes: Client) -> None:
    for number in range(4):
        define(nodes, f"web{number}", limit="hv2")
        assert node_of(nodes, f"web{number}") == "hv2"
    assert nodes.refused("POST", "/vm/web0/node", action="migrate") == "no-suitable-node"
    assert nodes.refused("POST", "/vm/web0/node", action="migrate", node="hv1") == "no-suitable-node"


def test_a_limit_takes_precedence_over_the_requested_node(nodes: Client) -> None:
    assert "node 'hv1' is not in the VM's limit" in str(define(nodes, "web1", limit="hv2,hv3", node="hv1")["warnings"])
    assert node_of(nodes, "web1") == "hv2"


@pytest.mark.parametrize("limit", ["hv3,hv2", "hv3, hv2", "hv3,,hv2,", "hv3,hv2,hv3"])
def test_a_limit_is_a_comma_separated_list_of_nodes(nodes: Client, limit: str) -> None:
    define(nodes, "web1", limit=limit)
    assert nodes.vm("web1")["node_limit"] == ["hv3", "hv2"]


def test_invalid_nodes_of_a_limit_are_ignored(nodes: Client) -> None:
    reply = define(nodes, "web1", limit="hv9,hv2,nobody")
    assert reply["warnings"] == ["limit: there is no node 'hv9'.", "limit: there is no node 'nobody'."]
    assert (node_of(nodes, "web1"), nodes.vm("web1")["node_limit"]) == ("hv2", ["hv2"])


def test_a_limit_without_valid_nodes_fails(nodes: Client) -> None:
    assert nodes.refused("POST", "/vm", xml=definition("web1"), limit="hv8,hv9") == "invalid-value"
    assert nodes.get("/vm") == []


def test_selector_mem_chooses_the_node_with_the_least_allocated_vm_memory(nodes: Client) -> None:
    define(nodes, "a", node="hv1", memory=500)
    define(nodes, "b", node="hv2", memory=100)
    define(nodes, "c", node="hv2", memory=100)
    define(nodes, "d", node="hv3", memory=300)
    start(nodes, "a", "b", "c", "d")
    define(nodes, "web1", selector="mem")
    assert node_of(nodes, "web1") == "hv2"


def test_selector_vcpus_chooses_the_node_with_the_least_allocated_vcpus(nodes: Client) -> None:
    define(nodes, "a", node="hv1", vcpus=4)
    define(nodes, "b", node="hv2", vcpus=3)
    define(nodes, "c", node="hv3", vcpus=1, memory=1000)
    define(nodes, "d", node="hv3", vcpus=1)
    start(nodes, "a", "b", "c", "d")
    define(nodes, "web1", selector="vcpus")
    assert node_of(nodes, "web1") == "hv3"


def test_selector_load_chooses_the_node_with_the_least_load_average(nodes: Client) -> None:
    assert [node["load"] for node in nodes.get("/node")[:3]] == [3.0, 1.0, 2.0]
    for number in range(2):
        define(nodes, f"web{number}", selector="load")
        assert node_of(nodes, f"web{number}") == "hv2"


def test_selector_vms_chooses_the_node_with_the_least_number_of_vms(nodes: Client) -> None:
    for number, node in enumerate(["hv1", "hv1", "hv2", "hv2", "hv3"]):
        define(nodes, f"vm{number}", node=node)
    start(nodes, "vm4")
    define(nodes, "web1", selector="vms")
    assert node_of(nodes, "web1") == "hv3"


@pytest.mark.parametrize("selector", ["memory", "MEM", "mem,load", "best"])
def test_other_selectors_are_invalid(nodes: Client, selector: str) -> None:
    assert nodes.refused("POST", "/vm", xml=definition("web1"), selector=selector) == "invalid-value"
    assert nodes.get("/vm") == []


def test_a_selector_applies_if_the_requested_node_is_invalid(nodes: Client) -> None:
    define(nodes, "web1", node="hv9", selector="load")
    assert node_of(nodes, "web1") == "hv2"


def test_a_selector_is_ignored_if_the_requested_node_is_valid(nodes: Client) -> None:
    define(nodes, "web1", node="hv1", selector="load")
    assert node_of(nodes, "web1") == "hv1"


def test_without_a_selector_the_default_of_the_cluster_applies(nodes: Client) -> None:
    define(nodes, "a", node="hv1", memory=100)
    define(nodes, "b", node="hv2", memory=300)
    define(nodes, "c", node="hv3", memory=200)
    start(nodes, "a", "b", "c")
    define(nodes, "web1")
    assert node_of(nodes, "web1") == "hv1", "which is the choice of mem"
    assert nodes.vm("web1")["node_selector"] == "mem"


def test_a_selector_is_remembered_and_used_when_the_vm_is_migrated(nodes: Client) -> None:
    define(nodes, "web1", node="hv1", selector="load")
    define(nodes, "web2", node="hv1", selector="vms")
    define(nodes, "a", node="hv2")
    assert [nodes.vm(name)["node_selector"] for name in ("web1", "web2")] == ["load", "vms"]
    for name, node in (("web1", "hv2"), ("web2", "hv3")):
        nodes.post(f"/vm/{name}/node", action="migrate")
        assert node_of(nodes, name) == node


def test_a_vm_set_to_autostart_is_started_when_its_home_node_becomes_ready(cluster: Cluster, guests: Guests) -> None:
    cluster.post("/vm", xml=guests.sector("auto"), autostart="")
    cluster.post("/vm", xml=guests.sector("manual"))
    assert [cluster.vm(name)["node_autostart"] for name in ("auto", "manual")] == [True, False]
    flush_and_ready(cluster, "pvchv1")
    cluster.until_state("auto", "start", True)
    cluster.until_state("manual", "stop", False)
    assert cluster.qemu("auto") and not cluster.qemu("manual")


def test_a_vm_set_to_autostart_is_not_started_when_another_node_becomes_ready(nodes: Client) -> None:
    define(nodes, "auto", node="hv1", autostart="")
    flush_and_ready(nodes, "hv2")
    assert nodes.vm("auto")["node_autostart"] is True
    nodes.until_state("auto", "stop", False)


def test_autostart_is_reset_after_each_use(nodes: Client) -> None:
    define(nodes, "auto", node="hv1", autostart="")
    flush_and_ready(nodes, "hv1")
    nodes.until_state("auto", "start", True)
    assert nodes.vm("auto")["node_autostart"] is False
    nodes.post("/vm/auto/state", state="stop")
    nodes.until_state("auto", "stop", False)
    flush_and_ready(nodes, "hv1")
    nodes.until_state("auto", "stop", False)


def test_the_resources_of_a_vm_are_assumed_to_exist_and_not_created(cluster: Cluster, guests: Guests) -> None:
    image = guests.directory / "never-made.img"
    xml = guests.sector("web1").replace(str(guests.directory / "web1.img"), str(image))
    cluster.post("/vm", xml=xml)
    assert cluster.vm("web1")["disks"][0]["name"] == str(image)
    assert not Path(image).exists()


def test_a_defined_vm_is_not_started(cluster: Cluster, guests: Guests) -> None:
    cluster.post("/vm", xml=guests.sector("web1"))
    cluster.until(lambda: cluster.vm("web1")["updated"])
    assert cluster.get("/vm/web1/state") == {"name": "web1", "state": "stop", "running": False}
    assert cluster.qemu("web1") is None


def test_a_name_or_uuid_in_use_is_refused(nodes: Client) -> None:
    uuid = uuid4()
    nodes.post("/vm", xml=definition("web1", uuid=uuid))
    assert nodes.refused("POST", "/vm", xml=definition("web1")) == "vm-exists"
    assert nodes.refused("POST", "/vm", xml=definition("web2", uuid=uuid)) == "vm-exists"
    assert names(nodes.get("/vm")) == ["web1"]


def flush_and_ready(api: Client, node: str) -> None:
    for asked, settled in (("flush", "flushed"), ("ready", "ready")):
        api.post(f"/node/{node}/domain-state", **{"domain-state": asked})
        api.until(lambda settled=settled: api.node(node)["domain_state"] == settled)  # type: ignore[misc]
