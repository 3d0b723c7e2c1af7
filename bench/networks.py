"""100 networks with 20 static leases and 10 ACLs each: through the API, onto the kernel, nftables and dnsmasq."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.servers import Server, api, header, row, server, settings, write

NETWORKS, LEASES, ACLS = 100, 20, 10
LIMIT_SECONDS = 120.0


def measure(folder: Path, address: str) -> None:
    """Measure everything in the network namespace of this process."""
    header(f"{NETWORKS} networks with {LEASES} static leases and {ACLS} ACLs each")
    with api(folder, address, "/networks") as ours, agent(folder, address):
        ours.wait("/api/v1/node/bench")
        _create(ours)
        _wait("bridges, gateways and rules applied", lambda: _applied() and not _failed(ours))
        _wait("all name servers answer", lambda: all(map(_answers, range(NETWORKS))))
        row("GET /network", _timed(100, lambda: ours.ask("GET", "/api/v1/network")))
        row("GET /network/{network}/lease", _timed(100, lambda: ours.ask("GET", "/api/v1/network/net7/lease")))
        row("GET /network/{network}/acl", _timed(100, lambda: ours.ask("GET", "/api/v1/network/net7/acl")))
        begun = time.perf_counter()
        ours.ask("POST", "/api/v1/network/net7/acl", description="last", direction="in", rule="udp dport 9 drop")
        _until(lambda: "udp dport 9 drop" in _nft("list", "table", "inet", "pvc"))
        row("from an ACL's POST to the kernel", [(time.perf_counter() - begun) * 1e3])


@contextmanager
def agent(folder: Path, address: str) -> Iterator[Server]:
    """Run the agent of a node without VMs, which becomes primary."""
    values = settings(address, "/networks", 0) | {
        "node": {"name": "bench"},
        "network": {"device": "lo", "directory": str(folder / "network")},
        "plugins": {"disabled": ["vm"]},
    }
    with server("-m", "pvcd", "node", port=0, PVC_CONFIG_FILE=write(folder / "node.yaml", values)) as started:
        yield started


def _create(ours: Server) -> None:
    made: dict[str, list[float]] = {"network": [], "lease": [], "acl": []}

    def post(kind: str, path: str, **values: str) -> None:
        begun = time.perf_counter()
        ours.ask("POST", f"/api/v1/network{path}", **values)
        made[kind].append((time.perf_counter() - begun) * 1e3)

    for number in range(NETWORKS):
        net = f"10.{number}.0"
        dhcp = {"dhcp4": "true", "dhcp4_start": f"{net}.100", "dhcp4_end": f"{net}.199"}
        addresses = {"ip4_network": f"{net}.0/24", "ip4_gateway": f"{net}.1", **dhcp}
        post("network", "", vni=str(1000 + number), description=f"net{number}", nettype="managed", **addresses)
        for host in range(LEASES):
            mac, ip = f"52:54:00:00:{number:02x}:{host:02x}", f"{net}.{10 + host}"
            post("lease", f"/net{number}/lease", macaddress=mac, ipaddress=ip, hostname=f"host{host}")
        for port in range(ACLS):
            rule = f"tcp dport {8000 + port} accept"
            post("acl", f"/net{number}/acl", description=f"web{port}", direction="in", rule=rule)
    for kind, taken in made.items():
        row(f"POST of a {kind}", taken)


def _applied() -> bool:
    links = json.loads(_run("ip", "-j", "-4", "address"))
    held = [link for link in links if link["ifname"].startswith("vmbr") and link["addr_info"]]
    return len(held) == NETWORKS and _nft("list", "table", "inet", "pvc").count("accept") >= NETWORKS * ACLS


def _failed(ours: Server) -> bool:
    return any(network["failed"] for network in json.loads(ours.ask("GET", "/api/v1/network")))


def _answers(number: int) -> bool:
    name = f"host{LEASES - 1}.net{number}.local"
    return bool(_run("dig", "+short", "+tries=1", "+time=1", f"@10.{number}.0.1", name, check=False).strip())


def _wait(what: str, condition: Callable[[], bool]) -> None:
    """Measure the time from the last request until a condition holds."""
    begun = time.perf_counter()
    _until(condition)
    row(what, [(time.perf_counter() - begun) * 1e3])


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"the condition did not hold within {LIMIT_SECONDS:g} s")
        time.sleep(0.02)


def _timed(count: int, act: Callable[[], object]) -> list[float]:
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        act()
        taken.append((time.perf_counter() - begun) * 1e3)
    return taken


def _nft(*words: str) -> str:
    return _run("nft", *words, check=False)


def _run(*argv: str, check: bool = True) -> str:
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    return subprocess.run(argv, check=check, capture_output=True, text=True, timeout=30, env=environment).stdout
