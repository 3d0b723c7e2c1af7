"""Networks across nodes: the real agents of three nodes in network namespaces, and guests that know nothing of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import ZooKeeperServer, free_ports, needs_zookeeper
from tests.hosts import Guest, Host, hosts, lease_script
from tests.servers import Api, Daemon, settings

NODES = ("hv1", "hv2", "hv3")
HERE = "10.99.0.254"
SWITCH = "brup"
PATIENCE = 60.0
SESSION = 3
APP = {
    "vni": 200,
    "description": "app",
    "nettype": "managed",
    "domain": "app.example",
    "ip4_network": "10.20.0.0/24",
    "ip4_gateway": "10.20.0.1",
    "dhcp4": "true",
    "dhcp4_start": "10.20.0.100",
    "dhcp4_end": "10.20.0.199",
}
DB = {
    "vni": 201,
    "description": "db",
    "nettype": "managed",
    "ip4_network": "10.21.0.0/24",
    "ip4_gateway": "10.21.0.1",
    "dhcp4": "true",
    "dhcp4_start": "10.21.0.100",
    "dhcp4_end": "10.21.0.199",
}
WEB, DYNAMIC, OTHER = "52:54:00:00:00:11", "52:54:00:00:00:12", "52:54:00:00:00:13"


class Cluster:
    """Nodes at one switch, each in its own namespace, with ZooKeeper and the API."""

    def __init__(self, folder: Path, api: Api, nodes: dict[str, Host], values: dict[str, Any]) -> None:
        self.api = api
        self.nodes = nodes
        self.script = lease_script(folder / "udhcpc")
        self._daemons: dict[str, Daemon] = {}
        for name in nodes:
            own = {"node": {"name": name}, "network": {"device": "up0", "directory": str(folder / name / "run")}}
            self._daemons[name] = Daemon(folder / name, {**values, **own}, "pvcd", "node")

    def start(self, *names: str) -> None:
        """Start agents, and return when the API says that they run."""
        for name in names:
            self._daemons[name].launch(*self.nodes[name].inside)

        def run() -> bool:
            states = {node["name"]: node["daemon_state"] for node in self.api.get("/node")}
            return all(states.get(name) == "run" for name in names)

        self.api.until(run, PATIENCE)

    def kill(self, name: str) -> None:
        self._daemons[name].stop(signal.SIGKILL)

    def pid(self, name: str) -> int:
        return self._daemons[name].pid

    def stop(self) -> None:
        for daemon in self._daemons.values():
            daemon.stop()
        for daemon in self._daemons.values():
            daemon.has_not_stumbled()

    @property
    def primary(self) -> str:
        found: list[str] = []

        def one() -> list[str]:
            found[:] = [node["name"] for node in self.api.get("/node") if node["coordinator_state"] == "primary"]
            return found

        self.api.until(one, PATIENCE)  # between two primaries there is none
        (name,) = found
        return str(name)

    def make_primary(self, name: str) -> None:
        self.api.post(f"/node/{name}/coordinator-state", **{"coordinator-state": "primary"})
        self.api.until(lambda: self.primary == name, PATIENCE)

    def holders(self, gateway: str, bridge: str) -> list[str]:
        """The nodes that have a gateway's address."""
        return [name for name, node in self.nodes.items() if gateway in node.addresses(bridge)]

    def leases(self) -> dict[str, Any]:
        """Return the leases of the network `app` by MAC address."""
        return {lease["mac_address"]: lease for lease in self.api.get("/network/app/lease")}

    def make(self, **values: Any) -> None:
        """Make a network, and return when all nodes have its bridge and the primary its gateway."""
        self.api.post("/network", **values)
        bridge = f"vmbr{values['vni']}"
        self.api.until(lambda: all(bridge in node.links() for node in self.nodes.values()), PATIENCE)
        self.api.until(lambda: self.holders(values["ip4_gateway"], bridge) == [self.primary], PATIENCE)

    def guest(self, stack: ExitStack, name: str, node: str, vni: int, mac: str) -> Guest:
        return stack.enter_context(Guest(name, self.nodes[node], f"vmbr{vni}", mac))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    needs_zookeeper()
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    folder = tmp_path_factory.mktemp("networks")
    ip("link", "add", SWITCH, "type", "bridge")
    ip("link", "set", SWITCH, "up")
    ip("address", "add", f"{HERE}/24", "dev", SWITCH)
    zookeeper = ZooKeeperServer(folder / "zookeeper", free_ports(1)[0], address=HERE)
    zookeeper.start()
    sections: dict[str, Any] = {
        "zookeeper": {"session_timeout": SESSION},
        "keepalive": {"interval": 1},
        "plugins": {"disabled": ["vm"]},
    }
    api = Api(folder / "api", zookeeper.hosts, **sections)
    api.start()
    try:
        with hosts(*NODES) as nodes:
            for number, node in enumerate(nodes, 1):
                node.plug("up0", None, f"port{number}", SWITCH)
                node.run("ip", "address", "add", f"10.99.0.{number}/24", "dev", "up0")
            values = settings(zookeeper.hosts, api.port, **sections)
            running = Cluster(folder, api, dict(zip(NODES, nodes, strict=True)), values)
            try:
                running.start(*NODES)
                yield running
            finally:
                running.stop()
    finally:
        api.stop()
        zookeeper.stop()
        ip("link", "delete", SWITCH)
    api.has_not_stumbled()


@pytest.fixture(autouse=True)
def clean(cluster: Cluster) -> Iterator[None]:
    """No network before and after each test, neither in the records nor on the nodes."""
    yield
    for each in cluster.api.get("/network"):
        cluster.api.delete(f"/network/{each['vni']}")
    cluster.api.until(lambda: not left(cluster), PATIENCE)


def left(cluster: Cluster) -> list[str]:
    """Return what nodes still have of networks."""
    found = []
    for name, node in cluster.nodes.items():
        found += [f"{name}: {link}" for link in node.links() if link.startswith(("vmbr", "vxlan"))]
        found += [f"{name}: {table}" for table in node.run("nft", "list", "tables").splitlines()]
    return found


def ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, capture_output=True, timeout=PATIENCE)


def test_guests_of_one_network_reach_each_other_across_nodes(cluster: Cluster) -> None:
    cluster.make(**APP)
    with ExitStack() as stack:
        macs = [f"52:54:00:00:01:0{number}" for number in range(3)]
        guests = [cluster.guest(stack, f"on-{node}", node, 200, mac) for node, mac in zip(NODES, macs, strict=True)]
        for number, guest in enumerate(guests):
            guest.run("ip", "address", "add", f"10.20.0.{50 + number}/24", "dev", "eth0")
        for number, guest in enumerate(guests):
            others = [f"10.20.0.{50 + other}" for other in range(len(guests)) if other != number]
            for address in (*others, "10.20.0.1"):
                cluster.api.until(lambda g=guest, a=address: g.pings(a), PATIENCE)  # type: ignore[misc]
        # The largest packet that fits is not lost, and a larger one is not cut in secret.
        assert guests[0].does("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", str(1450 - 28), "10.20.0.52")


def test_hosts_get_static_and_dynamic_addresses_and_names(cluster: Cluster) -> None:
    cluster.make(**APP)
    cluster.api.post("/network/app/lease", macaddress=WEB, ipaddress="10.20.0.10", hostname="web1")
    elsewhere = [name for name in NODES if name != cluster.primary]
    with ExitStack() as stack:
        web = cluster.guest(stack, "web1", elsewhere[0], 200, WEB)
        dyn = cluster.guest(stack, "dyn", elsewhere[1], 200, DYNAMIC)
        cluster.api.until(lambda: web.ask_for_address(cluster.script) == "10.20.0.10", PATIENCE)
        address = dyn.ask_for_address(cluster.script)
        assert address.startswith("10.20.0.1") and 100 <= int(address.rsplit(".")[-1]) <= 199
        cluster.api.until(lambda: DYNAMIC in cluster.leases(), PATIENCE)
        leases = cluster.leases()
        assert leases[WEB]["ip4_address"] == "10.20.0.10" and leases[WEB]["timestamp"] == "static"
        assert leases[DYNAMIC]["ip4_address"] == address and leases[DYNAMIC]["hostname"] == "dyn"
        assert leases[DYNAMIC]["timestamp"].isdigit()
        cluster.api.until(lambda: web.knows("dyn.app.example", "10.20.0.1") == [address], PATIENCE)
        cluster.api.until(lambda: dyn.knows("web1.app.example", "10.20.0.1") == ["10.20.0.10"], PATIENCE)
        for_all = cluster.nodes[cluster.primary].addresses("up0")[0]
        cluster.api.until(lambda: dyn.knows("web1.app.example", for_all) == ["10.20.0.10"], PATIENCE)


def test_an_acl_accepts_one_port_and_drops_another(cluster: Cluster) -> None:
    cluster.make(**APP)
    cluster.make(**DB)
    elsewhere = [name for name in NODES if name != cluster.primary]
    with ExitStack() as stack:
        client = cluster.guest(stack, "client", elsewhere[0], 200, DYNAMIC)
        server = cluster.guest(stack, "server", elsewhere[1], 201, OTHER)
        client.ask_for_address(cluster.script)
        address = server.ask_for_address(cluster.script)
        cluster.api.until(lambda: client.pings(address), PATIENCE)
        for port in (5432, 22):
            listen(stack, server, port)
            cluster.api.until(lambda p=port: reaches(client, address, p), PATIENCE)  # type: ignore[misc]
        for order, (name, rule) in enumerate({"sql": "tcp dport 5432 accept", "rest": "drop"}.items()):
            cluster.api.post("/network/db/acl", description=name, direction="in", rule=rule, order=order)
        cluster.api.until(lambda: not reaches(client, address, 22), PATIENCE)
        assert reaches(client, address, 5432)
        cluster.api.delete("/network/db/acl/rest", direction="in")
        cluster.api.until(lambda: reaches(client, address, 22), PATIENCE)


def listen(stack: ExitStack, host: Host, port: int) -> None:
    """A server that greets at a port of a host."""
    process = host.start(sys.executable, "-m", "http.server", str(port))
    stack.callback(process.wait)
    stack.callback(process.kill)


def reaches(host: Host, address: str, port: int) -> bool:
    return host.does("curl", "--silent", "--max-time", "1", f"http://{address}:{port}/")


def test_gateway_dhcp_and_names_move_with_the_primary_and_leases_are_kept(cluster: Cluster) -> None:
    cluster.make(**APP)
    cluster.api.post("/network/app/lease", macaddress=WEB, ipaddress="10.20.0.10", hostname="web1")
    cluster.make_primary("hv1")
    cluster.api.until(lambda: cluster.holders("10.20.0.1", "vmbr200") == ["hv1"], PATIENCE)
    with ExitStack() as stack:
        guest = cluster.guest(stack, "dyn", "hv3", 200, DYNAMIC)
        address = guest.ask_for_address(cluster.script)
        cluster.api.until(lambda: guest.pings("10.20.0.1"), PATIENCE)
        cluster.api.until(lambda: DYNAMIC in cluster.leases(), PATIENCE)
        before = cluster.leases()
        cluster.make_primary("hv2")
        cluster.api.until(lambda: cluster.holders("10.20.0.1", "vmbr200") == ["hv2"], PATIENCE)
        cluster.api.until(lambda: guest.pings("10.20.0.1"), PATIENCE)
        cluster.api.until(lambda: guest.knows("dyn.app.example", "10.20.0.1") == [address], PATIENCE)
        cluster.api.until(lambda: guest.knows("web1.app.example", "10.20.0.1") == ["10.20.0.10"], PATIENCE)
        assert cluster.leases() == before
        assert guest.ask_for_address(cluster.script) == address


def test_the_gateways_of_a_killed_primary_are_held_only_by_the_next_one(cluster: Cluster) -> None:
    cluster.make(**APP)
    old = cluster.primary
    other = next(name for name in NODES if name != old)
    with ExitStack() as stack:
        guest = cluster.guest(stack, "dyn", other, 200, DYNAMIC)
        address = guest.ask_for_address(cluster.script)
        cluster.api.until(lambda: DYNAMIC in cluster.leases(), PATIENCE)  # a lease of this very moment may be lost
        cluster.kill(old)
        try:
            cluster.api.until(lambda: cluster.primary != old, PATIENCE)
            cluster.api.until(lambda: cluster.holders("10.20.0.1", "vmbr200") == [cluster.primary], PATIENCE)
            cluster.api.until(lambda: guest.pings("10.20.0.1"), PATIENCE)
            cluster.api.until(lambda: guest.knows("dyn.app.example", "10.20.0.1") == [address], PATIENCE)
        finally:
            cluster.start(old)


def test_a_hanging_primary_keeps_no_gateway(cluster: Cluster) -> None:
    cluster.make(**APP)
    old = cluster.primary
    os.kill(cluster.pid(old), signal.SIGSTOP)
    try:
        cluster.api.until(lambda: cluster.holders("10.20.0.1", "vmbr200") not in ([old], []), PATIENCE)
        # The address may outlive the session by what lies between a sign of life and its last renewal.
        cluster.api.until(lambda: old not in cluster.holders("10.20.0.1", "vmbr200"), PATIENCE)
    finally:
        os.kill(cluster.pid(old), signal.SIGCONT)
    cluster.api.until(lambda: cluster.holders("10.20.0.1", "vmbr200") == [cluster.primary], PATIENCE)


def test_a_killed_dhcp_server_is_restarted(cluster: Cluster) -> None:
    cluster.make(**APP)
    with ExitStack() as stack:
        guest = cluster.guest(stack, "dyn", cluster.primary, 200, DYNAMIC)
        address = guest.ask_for_address(cluster.script)
        cluster.api.until(lambda: DYNAMIC in cluster.leases(), PATIENCE)
        for pid in dnsmasqs(cluster):
            os.kill(pid, signal.SIGKILL)
        cluster.api.until(lambda: guest.knows("dyn.app.example", "10.20.0.1") == [address], PATIENCE)
        assert guest.ask_for_address(cluster.script) == address


def dnsmasqs(cluster: Cluster) -> list[int]:
    """The servers that the primary's agent has started."""
    children = Path(f"/proc/{cluster.pid(cluster.primary)}/task").glob("*/children")
    pids = [int(pid) for path in children for pid in path.read_text().split()]
    return [pid for pid in pids if "dnsmasq" in Path(f"/proc/{pid}/comm").read_text()]


def test_a_new_reservation_applies_at_once(cluster: Cluster) -> None:
    cluster.make(**APP)
    with ExitStack() as stack:
        guest = cluster.guest(stack, "dyn", cluster.primary, 200, DYNAMIC)
        assert guest.ask_for_address(cluster.script) != "10.20.0.77"
        cluster.api.post("/network/app/lease", macaddress=DYNAMIC, ipaddress="10.20.0.77", hostname="fixed")

        cluster.api.until(lambda: guest.ask_for_address(cluster.script) == "10.20.0.77", PATIENCE)
        cluster.api.until(lambda: guest.knows("fixed.app.example", "10.20.0.1") == ["10.20.0.77"], PATIENCE)


def test_ipv6_is_advertised(cluster: Cluster) -> None:
    cluster.make(**APP | {"ip6_network": "fd20::/64"})
    with ExitStack() as stack:
        guest = cluster.guest(stack, "six", next(name for name in NODES if name != cluster.primary), 200, DYNAMIC)
        cluster.api.until(lambda: any(each.startswith("fd20::") for each in guest.addresses("eth0")), PATIENCE)
        cluster.api.until(lambda: guest.pings("fd20::1"), PATIENCE)


def test_problems_of_a_node_are_shown(cluster: Cluster) -> None:
    node = cluster.nodes["hv2"]
    node.run("ip", "link", "add", "vmbr300", "type", "bridge")
    try:
        cluster.api.post("/network", vni=300, description="taken", nettype="managed")
        cluster.api.until(lambda: cluster.api.get("/network/taken")[0]["failed"], PATIENCE)
        (failed,) = cluster.api.get("/network/taken")[0]["failed"].items()
        assert failed[0] == "hv2" and "vmbr300" in failed[1]
    finally:
        node.run("ip", "link", "delete", "vmbr300")
    cluster.api.delete("/network/taken")


def test_foreign_links_and_rules_stay_unchanged(cluster: Cluster) -> None:
    node = cluster.nodes["hv1"]
    node.run("nft", "add table inet site; add chain inet site mine { type filter hook forward priority 0; }")
    node.run("ip", "link", "add", "site0", "type", "bridge")
    try:
        cluster.make(**APP)
        cluster.api.post("/network/app/acl", description="web", direction="in", rule="tcp dport 80 accept")
        cluster.api.delete("/network/app")
        cluster.api.until(lambda: "vmbr200" not in node.links(), PATIENCE)
        cluster.api.until(lambda: node.run("nft", "list", "tables").split() == ["table", "inet", "site"], PATIENCE)
        assert "site0" in node.links()
    finally:
        node.run("nft", "delete", "table", "inet", "site")
        node.run("ip", "link", "delete", "site0")


def test_two_overlapping_networks_cannot_be_created_concurrently(cluster: Cluster) -> None:
    statuses: list[int] = []

    def make(number: int) -> None:
        values = APP | {"vni": 400 + number, "description": f"n{number}", "domain": f"n{number}.example"}
        statuses.append(cluster.api.ask("POST", "/network", **values)[0])

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(statuses) == [200] + [510] * 7
