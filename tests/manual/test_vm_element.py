"""VM endpoints: one VM, its state, its node and its locks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from pvcd.testing import SimulatedCluster, opened
from pvcd_plugins.vm.components import HYPERVISOR, wake_vms
from pvcd_plugins.vm.hypervisor.fake import FakeHypervisor
from tests.client import Client
from tests.integration.cluster import Cluster, Guests
from tests.servers import definition

from .test_vm_collection import define, flush_and_ready, node_of, start


@pytest.fixture
def web1(cluster: Cluster, guests: Guests) -> str:
    """A VM of the sandbox; its definition."""
    xml = guests.sector("web1")
    cluster.post("/vm", xml=xml)
    return xml


def described(xml: str, text: str) -> str:
    """The same VM with a description."""
    return xml.replace("<vcpu>", f"<description>{text}</description><vcpu>")


# <vm>


@pytest.mark.parametrize("path", ["", "/state", "/node", "/dump", "/console"])
def test_a_vm_is_read_by_its_name_or_its_uuid(cluster: Cluster, web1: str, path: str) -> None:
    cluster.until(lambda: cluster.vm("web1")["updated"])
    by_name, by_uuid = (cluster.send("GET", f"/vm/{key}{path}") for key in ("web1", cluster.vm("web1")["uuid"]))
    assert (by_name.status, by_name.body) == (by_uuid.status, by_uuid.body)
    assert by_name.status == 200 or path == "/console"


def test_a_vm_is_changed_by_its_name_or_its_uuid(cluster: Cluster, web1: str) -> None:
    uuid = cluster.vm("web1")["uuid"]
    for key, selector in (("web1", "load"), (uuid, "vms"), (uuid.upper(), "vcpus")):
        cluster.post(f"/vm/{key}", selector=selector)
        assert cluster.vm("web1")["node_selector"] == selector
        assert cluster.ask("PUT", f"/vm/{key}", xml=described(web1, selector))[0] == 200
        assert cluster.vm("web1")["description"] == selector
    for key, state in (("web1", "start"), (uuid, "stop")):
        cluster.post(f"/vm/{key}/state", state=state)
        cluster.until_state("web1", state, state == "start")
    assert cluster.refused("POST", f"/vm/{uuid}/node", action="unmigrate") == "vm-not-migrated"
    assert cluster.ask("DELETE", f"/vm/{uuid}")[0] == 200
    assert cluster.get("/vm") == []


# GET /vm/<vm>


def test_a_vm_is_shown_as_in_the_list(cluster: Cluster, web1: str) -> None:
    cluster.until(lambda: cluster.vm("web1")["updated"])
    assert cluster.get("/vm/web1") == cluster.get("/vm", limit="web1")


@pytest.mark.parametrize("name", ["web", "eb1", "web10", "web.", "^web1$", "WEB1"])
def test_a_vm_is_found_without_fuzzy_matching(cluster: Cluster, web1: str, name: str) -> None:
    for path in ("", "/state", "/node", "/dump", "/console", "/locks"):
        assert cluster.refused("GET", f"/vm/{name}{path}") == "vm-not-found"


# POST /vm/<vm>


def test_metadata_update_requires_a_value(nodes: Client) -> None:
    define(nodes, "web1")
    before = nodes.vm("web1")
    assert nodes.refused("POST", "/vm/web1") == "invalid-value"
    assert nodes.refused("POST", "/vm/web1", autostart="false") == "invalid-value"
    assert {**nodes.vm("web1"), "updated": 0} == {**before, "updated": 0}


def test_metadata_update_changes_only_the_given_values(nodes: Client) -> None:
    define(nodes, "web1", selector="load", limit="hv1,hv2", autostart="")
    nodes.post("/vm/web1", selector="vms")
    vm = nodes.vm("web1")
    assert (vm["node_selector"], vm["node_limit"], vm["node_autostart"]) == ("vms", ["hv1", "hv2"], True)


def test_an_updated_limit_excludes_all_other_nodes(nodes: Client) -> None:
    define(nodes, "web1", node="hv1")
    nodes.post("/vm/web1", limit="hv1,hv3")
    assert nodes.refused("POST", "/vm/web1/node", action="unmigrate") == "vm-not-migrated"
    assert "node 'hv2' is not in the VM's limit" in str(
        nodes.post("/vm/web1/node", action="migrate", node="hv2")["warnings"]
    )
    assert node_of(nodes, "web1") == "hv3"


def test_a_vm_does_not_start_on_a_node_outside_its_limit(nodes: Client) -> None:
    define(nodes, "web1", node="hv1")
    assert "hv1" in str(nodes.post("/vm/web1", limit="hv2,hv3")["warnings"])
    assert nodes.refused("POST", "/vm/web1/state", state="start") == "node-outside-limit"
    nodes.post("/vm/web1", autostart="")
    flush_and_ready(nodes, "hv1")
    nodes.until_state("web1", "stop", False)
    nodes.post("/vm/web1/node", action="migrate")
    start(nodes, "web1")
    assert node_of(nodes, "web1") == "hv2"


def test_invalid_nodes_of_an_updated_limit_are_ignored(nodes: Client) -> None:
    define(nodes, "web1", node="hv1")
    assert nodes.post("/vm/web1", limit="hv9,hv1")["warnings"] == ["limit: there is no node 'hv9'."]
    assert nodes.vm("web1")["node_limit"] == ["hv1"]
    assert nodes.refused("POST", "/vm/web1", limit="hv8,hv9") == "invalid-value"
    assert nodes.vm("web1")["node_limit"] == ["hv1"]


def test_an_updated_selector_is_used_when_the_vm_is_migrated(nodes: Client) -> None:
    define(nodes, "a", node="hv2")
    define(nodes, "web1", node="hv1", selector="vms")
    nodes.post("/vm/web1", selector="load")
    nodes.post("/vm/web1/node", action="migrate")
    assert node_of(nodes, "web1") == "hv2", "which has the least load, but not the least VMs"


@pytest.mark.parametrize("selector", ["mem", "vcpus", "load", "vms"])
def test_each_of_the_four_selectors_is_valid(nodes: Client, selector: str) -> None:
    define(nodes, "web1")
    nodes.post("/vm/web1", selector=selector)
    assert nodes.vm("web1")["node_selector"] == selector


@pytest.mark.parametrize("selector", ["", "memory", "LOAD", "None"])
def test_any_other_selector_is_invalid(nodes: Client, selector: str) -> None:
    define(nodes, "web1", selector="load")
    assert nodes.refused("POST", "/vm/web1", selector=selector) == "invalid-value"
    assert nodes.vm("web1")["node_selector"] == "load"


def test_autostart_set_later_starts_the_vm_when_its_node_becomes_ready_and_is_then_reset(nodes: Client) -> None:
    define(nodes, "web1", node="hv1")
    nodes.post("/vm/web1", autostart="")
    flush_and_ready(nodes, "hv1")
    nodes.until_state("web1", "start", True)
    assert nodes.vm("web1")["node_autostart"] is False


def test_no_autostart_disables_an_existing_autostart(nodes: Client) -> None:
    define(nodes, "web1", node="hv1", autostart="")
    nodes.post("/vm/web1", **{"no-autostart": ""})
    assert nodes.vm("web1")["node_autostart"] is False
    flush_and_ready(nodes, "hv1")
    nodes.until_state("web1", "stop", False)


def test_no_autostart_without_autostart_changes_nothing(nodes: Client) -> None:
    define(nodes, "web1")
    nodes.post("/vm/web1", **{"no-autostart": ""})
    assert nodes.vm("web1")["node_autostart"] is False


# PUT /vm/<vm>


@pytest.mark.parametrize("lines", ["one", "many"])
def test_a_definition_is_replaced_by_xml_of_one_line_or_many(cluster: Cluster, web1: str, lines: str) -> None:
    xml = described(web1, "new")
    if lines == "one":
        xml = "".join(line.strip() for line in xml.splitlines())
    assert cluster.ask("PUT", "/vm/web1", xml=xml)[0] == 200
    vm = cluster.vm("web1")
    assert (vm["xml"], vm["description"], vm["state"]) == (xml, "new", "stop")


def test_replacing_a_definition_requires_xml(cluster: Cluster, web1: str) -> None:
    status, body = cluster.ask("PUT", "/vm/web1", restart="")
    assert (status, body["message"]) == (510, "The argument 'xml' is missing.")
    assert cluster.vm("web1")["xml"] == web1


@pytest.mark.parametrize("xml", ["", "<domain/>", "<domain type='qemu'><name>web1</name></domain>"])
def test_an_invalid_definition_replaces_none(cluster: Cluster, web1: str, xml: str) -> None:
    assert cluster.refused("PUT", "/vm/web1", xml=xml) == "invalid-value"
    assert cluster.vm("web1")["xml"] == web1


def test_with_restart_the_vm_is_restarted_with_its_new_definition(nodes: Client) -> None:
    uuid = UUID(int=7)
    nodes.post("/vm", xml=definition("web1", uuid=uuid, memory=64), node="hv1")
    start(nodes, "web1")
    assert nodes.ask("PUT", "/vm/web1", xml=definition("web1", uuid=uuid, memory=96), restart="")[0] == 200
    nodes.until(lambda: nodes.node("hv1")["memory"]["allocated"] == 96)
    nodes.until_state("web1", "start", True)


def test_without_restart_the_new_definition_applies_after_the_next_restart(nodes: Client) -> None:
    uuid = UUID(int=7)
    nodes.post("/vm", xml=definition("web1", uuid=uuid, memory=64), node="hv1")
    start(nodes, "web1")
    nodes.until(lambda: nodes.node("hv1")["memory"]["allocated"] == 64)
    assert nodes.ask("PUT", "/vm/web1", xml=definition("web1", uuid=uuid, memory=96))[0] == 200
    assert (nodes.vm("web1")["memory"], nodes.vm("web1")["state"]) == (96, "start")
    assert nodes.node("hv1")["memory"]["allocated"] == 64
    nodes.post("/vm/web1/state", state="restart")
    nodes.until(lambda: nodes.node("hv1")["memory"]["allocated"] == 96)


# DELETE /vm/<vm>


def test_a_running_vm_is_forcibly_stopped_and_undefined(cluster: Cluster, web1: str) -> None:
    start(cluster, "web1")
    assert cluster.qemu("web1")
    assert cluster.ask("DELETE", "/vm/web1") == (200, {"message": "VM 'web1' removed."})
    assert cluster.qemu("web1") is None, "although it ignores the power button"
    assert cluster.refused("GET", "/vm/web1") == "vm-not-found"
    assert cluster.get("/vm") == []


def test_delete_disks_removes_a_vm_without_ceph_volumes_and_keeps_its_files(
    cluster: Cluster, guests: Guests, web1: str
) -> None:
    assert cluster.ask("DELETE", "/vm/web1", delete_disks="")[0] == 200
    assert (guests.directory / "web1.img").exists()


# /vm/<vm>/state


def test_the_state_of_a_vm_is_shown(cluster: Cluster, web1: str) -> None:
    assert cluster.get("/vm/web1/state") == {"name": "web1", "state": "stop", "running": False}


def test_a_vm_is_set_to_start_and_to_stop(cluster: Cluster, web1: str) -> None:
    cluster.post("/vm/web1/state", state="start")
    cluster.until_state("web1", "start", True)
    assert cluster.qemu("web1")
    cluster.post("/vm/web1/state", state="stop")
    cluster.until_state("web1", "stop", False)
    assert cluster.qemu("web1") is None


def test_a_vm_is_set_to_shutdown(nodes: Client) -> None:
    define(nodes, "web1")
    start(nodes, "web1")
    nodes.post("/vm/web1/state", state="shutdown")
    nodes.until_state("web1", "stop", False)


def test_a_vm_is_set_to_restart(nodes: Client) -> None:
    define(nodes, "web1")
    start(nodes, "web1")
    nodes.post("/vm/web1/state", state="restart")
    assert nodes.get("/vm/web1/state")["state"] == "restart"
    nodes.until_state("web1", "start", True)


def test_setting_the_current_state_has_no_effect(cluster: Cluster, web1: str) -> None:
    for state in ("stop", "shutdown"):
        assert cluster.post("/vm/web1/state", state=state) == {"message": "VM 'web1' is already in state 'stop'."}
    start(cluster, "web1")
    guest, updated = cluster.qemu("web1"), cluster.vm("web1")["updated"]
    assert cluster.post("/vm/web1/state", state="start") == {"message": "VM 'web1' is already in state 'start'."}
    assert (cluster.qemu("web1"), cluster.vm("web1")["updated"]) == (guest, updated)


def test_the_value_state_is_mandatory(cluster: Cluster, web1: str) -> None:
    status, body = cluster.ask("POST", "/vm/web1/state")
    assert (status, body["message"]) == (510, "The argument 'state' is missing.")


@pytest.mark.parametrize("state", ["", "Start", "run", "migrate", "delete", "provision", "start,stop"])
def test_other_states_are_invalid(cluster: Cluster, web1: str, state: str) -> None:
    assert cluster.refused("POST", "/vm/web1/state", state=state) == "invalid-value"
    assert cluster.get("/vm/web1/state")["state"] == "stop"


async def test_a_graceful_shutdown_becomes_a_stop_after_90_seconds() -> None:
    """In simulated time, so that the test does not wait for 90 seconds."""
    hypervisors = []

    @contextlib.asynccontextmanager
    async def deaf(context: Any) -> AsyncIterator[FakeHypervisor]:
        hypervisor = FakeHypervisor(context.clock)
        hypervisor.ignores_shutdown.add(UUID(int=7))
        hypervisor.listen(lambda uuid: wake_vms(context, uuid))
        hypervisors.append(hypervisor)
        await hypervisor.open()
        async with opened(hypervisor):
            yield hypervisor
        await hypervisor.close()

    async with SimulatedCluster(["hv1"], replace={HYPERVISOR: deaf}, keepalive={"interval": 1}) as cluster:
        await cluster.advance(2)

        async def state() -> tuple[str, bool]:
            said = (await cluster.request("GET", "/api/v1/vm/web1/state")).json
            return said["state"], said["running"]

        await cluster.request("POST", "/api/v1/vm", xml=definition("web1", uuid=UUID(int=7)))
        await cluster.request("POST", "/api/v1/vm/web1/state", state="start")
        await cluster.advance(1)
        assert await state() == ("start", True)
        await cluster.request("POST", "/api/v1/vm/web1/state", state="shutdown")
        await cluster.advance(89)
        assert await state() == ("shutdown", True)
        await cluster.advance(2)
        assert await state() == ("stop", False)
        assert not await hypervisors[0].domains()


# /vm/<vm>/node


def test_the_node_of_a_vm_and_its_previous_node_are_shown(nodes: Client) -> None:
    define(nodes, "web1", node="hv1")
    assert nodes.get("/vm/web1/node") == {"name": "web1", "node": "hv1", "last_node": None}
    nodes.post("/vm/web1/node", action="migrate", node="hv3")
    assert nodes.get("/vm/web1/node") == {"name": "web1", "node": "hv3", "last_node": "hv1"}


def test_a_vm_is_migrated_and_back(nodes: Client) -> None:
    define(nodes, "web1", node="hv2")
    nodes.post("/vm/web1/node", action="migrate")
    assert node_of(nodes, "web1") != "hv2"
    assert nodes.vm("web1")["migrated"] == "from hv2"
    nodes.post("/vm/web1/node", action="unmigrate")
    assert nodes.get("/vm/web1/node") == {"name": "web1", "node": "hv2", "last_node": None}
    assert nodes.vm("web1")["migrated"] == "no"


def test_the_value_action_is_mandatory(nodes: Client) -> None:
    define(nodes, "web1")
    status, body = nodes.ask("POST", "/vm/web1/node", node="hv2")
    assert (status, body["message"]) == (510, "The argument 'action' is missing.")


@pytest.mark.parametrize("action", ["", "move", "Migrate", "migrate,unmigrate"])
def test_actions_other_than_migrate_and_unmigrate_are_not_valid(nodes: Client, action: str) -> None:
    define(nodes, "web1", node="hv1")
    assert nodes.refused("POST", "/vm/web1/node", action=action) == "invalid-value"
    assert node_of(nodes, "web1") == "hv1"


def test_a_vm_is_migrated_to_the_requested_node(nodes: Client) -> None:
    define(nodes, "web1", node="hv1")
    assert "warnings" not in nodes.post("/vm/web1/node", action="migrate", node="hv3")
    assert node_of(nodes, "web1") == "hv3"


def test_an_invalid_target_is_replaced_by_an_automatic_choice(nodes: Client) -> None:
    define(nodes, "web1", node="hv1")
    reply = nodes.post("/vm/web1/node", action="migrate", node="hv9")
    assert node_of(nodes, "web1") == "hv2"
    assert "chosen instead of 'hv9'" in str(reply["warnings"])


@pytest.mark.parametrize(("selector", "expected"), [("mem", "hv3"), ("vcpus", "hv3"), ("load", "hv2"), ("vms", "hv3")])
def test_the_selector_of_the_request_chooses_the_target(nodes: Client, selector: str, expected: str) -> None:
    define(nodes, "web1", node="hv1", selector="load")
    define(nodes, "a", node="hv2", memory=100, vcpus=2)
    start(nodes, "a")
    nodes.post("/vm/web1/node", action="migrate", selector=selector, node="hv9")
    assert node_of(nodes, "web1") == expected
    assert nodes.vm("web1")["node_selector"] == "load", "which stays that of the VM"


def test_other_selectors_of_a_migration_are_invalid(nodes: Client) -> None:
    define(nodes, "web1", node="hv1")
    assert nodes.refused("POST", "/vm/web1/node", action="migrate", selector="best") == "invalid-value"
    assert node_of(nodes, "web1") == "hv1"


def test_a_permanent_move_forgets_the_previous_node(nodes: Client) -> None:
    define(nodes, "web1", node="hv1")
    nodes.post("/vm/web1/node", action="migrate", node="hv2", permanent="")
    vm = nodes.vm("web1")
    assert (vm["node"], vm["last_node"], vm["migrated"]) == ("hv2", None, "no")
    assert nodes.refused("POST", "/vm/web1/node", action="unmigrate") == "vm-not-migrated"


def test_force_migrates_a_migrated_vm_again_and_keeps_its_first_node(nodes: Client) -> None:
    define(nodes, "web1", node="hv1")
    nodes.post("/vm/web1/node", action="migrate", node="hv2")
    assert nodes.refused("POST", "/vm/web1/node", action="migrate", node="hv3") == "vm-migrated"
    assert node_of(nodes, "web1") == "hv2"
    nodes.post("/vm/web1/node", action="migrate", node="hv3", force="")
    assert nodes.get("/vm/web1/node") == {"name": "web1", "node": "hv3", "last_node": "hv1"}


# /vm/<vm>/locks


def test_a_vm_without_volumes_has_no_locks_and_they_can_be_cleared(cluster: Cluster, web1: str) -> None:
    """Without a storage plugin this is refused with a sentence."""
    for method in ("GET", "POST"):
        status, body = cluster.ask(method, "/vm/web1/locks")
        assert (status, not body or "message" in body) == (200, True) or body["code"] == "storage-not-available"
