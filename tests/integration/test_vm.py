"""VMs on real ZooKeeper, libvirt and QEMU, through the API of the running daemons."""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from pvcd_plugins.sandbox import guest

from .cluster import Cluster, Guests


def test_a_vm_is_defined_started_seen_on_its_console_shut_down_and_removed(cluster: Cluster, guests: Guests) -> None:
    xml = guests.linux("web1")
    assert "defined on node 'pvchv1'" in cluster.post("/vm", xml=xml)["message"]
    vm = cluster.vm("web1")
    assert (vm["state"], vm["running"], vm["node"]) == ("stop", False, "pvchv1")
    assert cluster.get("/vm/web1/dump") == xml.strip() or cluster.get("/vm/web1/dump") == xml
    cluster.post("/vm/web1/state", state="start")
    cluster.until_state("web1", "start", True)
    cluster.until(lambda: guest.GREETING in cluster.get("/vm/web1/console", lines=20)["data"], 60)
    cluster.until(lambda: cluster.get("/node/pvchv1")[0]["domains_count"] == 1)
    node = cluster.get("/node/pvchv1")[0]
    assert node["running_domains"] == [cluster.vm("web1")["uuid"]]
    assert (node["memory"]["allocated"], node["vcpu"]["allocated"]) == (128, 1)
    cluster.post("/vm/web1/state", state="shutdown")
    cluster.until_state("web1", "stop", False)
    assert "power button" in cluster.get("/vm/web1/console", lines=3)["data"]
    assert cluster.ask("DELETE", "/vm/web1") == (200, {"message": "VM 'web1' removed."})
    assert cluster.get("/vm") == []
    cluster.until(lambda: not list((cluster.directory / "console").iterdir()))


def test_a_restart_starts_a_new_guest(cluster: Cluster, guests: Guests) -> None:
    cluster.post("/vm", xml=guests.linux("web1"))
    cluster.post("/vm/web1/state", state="start")
    cluster.until(lambda: guest.GREETING in cluster.get("/vm/web1/console")["data"], 60)
    before = cluster.qemu("web1")
    cluster.post("/vm/web1/state", state="restart")
    cluster.until_state("web1", "start", True)
    after = cluster.qemu("web1")
    assert before and after and before != after


def test_a_modified_vm_is_restarted_with_its_new_definition(cluster: Cluster, guests: Guests) -> None:
    xml = guests.linux("web1")
    cluster.post("/vm", xml=xml)
    cluster.post("/vm/web1/state", state="start")
    cluster.until(lambda: guest.GREETING in cluster.get("/vm/web1/console")["data"], 60)
    larger = xml.replace(">128</memory>", ">160</memory>")
    assert larger != xml
    assert cluster.ask("PUT", "/vm/web1", xml=larger, restart="")[0] == 200
    cluster.until_state("web1", "start", True)
    cluster.until(lambda: cluster.get("/node/pvchv1")[0]["memory"]["allocated"] == 160)
    assert cluster.vm("web1")["memory"] == 160
    refused = cluster.ask("PUT", "/vm/web1", xml=guests.linux("other"))
    assert (refused[0], refused[1]["code"]) == (510, "invalid-value")


def test_a_killed_guest_is_restarted(cluster: Cluster, guests: Guests) -> None:
    cluster.post("/vm", xml=guests.sector("web1"))
    cluster.post("/vm/web1/state", state="start")
    cluster.until_state("web1", "start", True)
    before = cluster.qemu("web1")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    cluster.until(lambda: cluster.qemu("web1") not in (None, before))
    cluster.until_state("web1", "start", True)


def test_a_killed_agent_affects_no_guest_and_catches_up(cluster: Cluster, guests: Guests) -> None:
    for name in ("web1", "web2"):
        cluster.post("/vm", xml=guests.sector(name))
        cluster.post(f"/vm/{name}/state", state="start")
        cluster.until_state(name, "start", True)
    guest_process = cluster.qemu("web1")
    assert guest_process is not None
    cluster.kill("node")
    cluster.post("/vm/web2/state", state="stop")
    cluster.until_state("web2", "stop", False)
    cluster.until_state("web1", "start", True)
    assert cluster.qemu("web1") == guest_process
    assert cluster.qemu("web2") is None


def test_a_hanging_agent_shows_as_dead_within_its_session_timeout_and_recovers(cluster: Cluster) -> None:
    pid = cluster.kill("node", signal.SIGSTOP)
    try:
        cluster.until(lambda: cluster.get("/node/pvchv1/daemon-state")["daemon_state"] == "dead", 6)
    finally:
        os.kill(pid, signal.SIGCONT)
    cluster.until(lambda: cluster.get("/node/pvchv1/daemon-state")["daemon_state"] == "run")
    cluster.until(lambda: cluster.get("/node/pvchv1/coordinator-state")["coordinator_state"] == "primary")


def test_a_killed_libvirtd_affects_no_guest(cluster: Cluster, guests: Guests) -> None:
    cluster.post("/vm", xml=guests.sector("web1"))
    cluster.post("/vm", xml=guests.sector("web2"))
    cluster.post("/vm/web1/state", state="start")
    cluster.until_state("web1", "start", True)
    guest_process = cluster.qemu("web1")
    assert guest_process is not None
    cluster.kill("libvirtd")
    cluster.post("/vm/web2/state", state="start")
    cluster.until_state("web2", "start", True)
    assert cluster.qemu("web1") == guest_process
    assert cluster.get("/node/pvchv1/daemon-state")["daemon_state"] == "run"
    cluster.post("/vm/web1/state", state="stop")
    cluster.until_state("web1", "stop", False)
    assert cluster.qemu("web1") is None


def test_a_killed_zookeeper_affects_only_writes_while_it_is_down(cluster: Cluster, guests: Guests) -> None:
    cluster.post("/vm", xml=guests.sector("web1"))
    cluster.kill("zookeeper")
    assert cluster.vm("web1")["state"] == "stop"
    cluster.until(lambda: cluster.ask("POST", "/vm/web1/state", state="start")[0] == 200)
    cluster.until_state("web1", "start", True)
    cluster.until(lambda: cluster.get("/node/pvchv1/daemon-state")["daemon_state"] == "run")


def test_a_stop_during_a_shutdown_and_a_start_during_a_restart_are_not_lost(cluster: Cluster, guests: Guests) -> None:
    for name in ("web1", "web2"):
        cluster.post("/vm", xml=guests.sector(name))
        cluster.post(f"/vm/{name}/state", state="start")
        cluster.until_state(name, "start", True)
    cluster.post("/vm/web1/state", state="shutdown")
    cluster.post("/vm/web2/state", state="restart")
    assert cluster.get("/vm/web1/state") == {"name": "web1", "state": "shutdown", "running": True}
    assert cluster.get("/vm/web2/state") == {"name": "web2", "state": "restart", "running": True}
    cluster.post("/vm/web1/state", state="stop")
    cluster.post("/vm/web2/state", state="start")
    cluster.until_state("web1", "stop", False)
    cluster.until_state("web2", "start", True)


def test_a_flushed_node_has_no_guests_and_takes_them_back(cluster: Cluster, guests: Guests) -> None:
    cluster.post("/vm", xml=guests.linux("web1"))
    cluster.post("/vm/web1/state", state="start")
    cluster.until(lambda: guest.GREETING in cluster.get("/vm/web1/console")["data"], 60)
    try:
        cluster.post("/node/pvchv1/domain-state", **{"domain-state": "flush"})
        cluster.until(lambda: cluster.get("/node/pvchv1/domain-state")["domain_state"] == "flushed")
        assert cluster.qemu("web1") is None
    finally:
        cluster.post("/node/pvchv1/domain-state", **{"domain-state": "ready"})
    cluster.until(lambda: cluster.get("/node/pvchv1/domain-state")["domain_state"] == "ready")
    cluster.until_state("web1", "start", True)


def test_one_of_50_concurrent_defines_of_a_name_succeeds(cluster: Cluster, guests: Guests) -> None:
    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(lambda _: cluster.ask("POST", "/vm", xml=guests.sector("web1")), range(50)))
    assert sorted(status for status, _ in replies) == [200] + [510] * 49
    assert {body["code"] for status, body in replies if status == 510} == {"vm-exists"}
    assert [vm["name"] for vm in cluster.get("/vm")] == ["web1"]


def test_none_of_200_concurrent_metadata_changes_is_lost(cluster: Cluster, guests: Guests) -> None:
    cluster.post("/vm", xml=guests.sector("web1"))

    def change(number: int) -> tuple[int, str]:
        values = [{"selector": "load"}, {"autostart": ""}, {"limit": "pvchv1"}][number % 3]
        status, body = cluster.ask("POST", "/vm/web1", **values)
        return status, str(body)

    with ThreadPoolExecutor(40) as pool:
        assert {reply for reply in pool.map(change, range(200)) if reply[0] != 200} == set()
    vm = cluster.vm("web1")
    assert (vm["node_selector"], vm["node_autostart"], vm["node_limit"]) == ("load", True, ["pvchv1"])


def test_gets_send_no_request_to_zookeeper(cluster: Cluster, guests: Guests) -> None:
    cluster.post("/vm", xml=guests.sector("web1"))
    before, begun = packets_received(cluster), time.monotonic()
    for _ in range(100):
        for path in ("/vm", "/vm/web1", "/vm/web1/state", "/node", "/node/pvchv1"):
            cluster.get(path)
    # The pings of three daemons, and the reports that the node writes every second; but 500 requests.
    assert packets_received(cluster) - before < 100 + 20 * (time.monotonic() - begun)


def packets_received(cluster: Cluster) -> int:
    """Return the number of requests that ZooKeeper has received from all clients."""
    port = cluster.server("zookeeper")["port"]
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"srvr")
        text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    return int(text.partition("Received: ")[2].partition("\n")[0])


def test_a_hostile_definition_is_refused_with_a_sentence_and_leaves_nothing(cluster: Cluster, guests: Guests) -> None:
    good = guests.sector("web1")
    entity = '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + good.replace(
        "<name>", "<description>&x;</description><name>"
    )
    for xml in (
        entity,
        good.replace("<name>web1</name>", ""),
        good.replace("<name>web1</name>", "<name>../web1</name>"),
        good.replace("<devices>", "<devices><nonsense/>"),
        good.replace('type="qemu"', 'type="kvm"', 1),
        good.replace("/usr/bin/qemu-system-x86_64", "/bin/sh"),
        "x" * 300_000,
        "",
    ):
        status, body = cluster.ask("POST", "/vm", xml=xml)
        assert status == 510, xml[:200]
        assert body["message"].endswith("."), body
        assert "root:" not in body["message"]
    assert cluster.get("/vm") == []
    assert cluster.post("/vm", xml=good)
