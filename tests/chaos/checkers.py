"""Comparisons of what the API says with the models of its clients, and with libvirt, Ceph and the kernel."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import libvirt

from pvcd_plugins.sandbox import ceph, libvirtd
from pvcd_plugins.sandbox.cluster import LIBVIRT
from tests.chaos.faults import is_dnsmasq
from tests.chaos.model import Journal, State
from tests.chaos.operations import VMS, RandomClient
from tests.integration.cluster import Cluster
from tests.integration.faults import processes
from tests.integration.traces import Traces, compared, traces

SETTLED = {"restart": "start", "shutdown": "stop"}
"""The state that a VM comes to show after a request."""
OVER = ("SUCCESS", "FAILURE", "CANCELLED")


def output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def watchers(cluster: Cluster, volume: str) -> str:
    """Return the clients of a volume, and the programs that may be one."""
    conf = str(ceph.conf(cluster.directory / "ceph"))
    try:
        clients = output("rbd", "--conf", conf, "status", f"{ceph.POOL}/{volume}")
    except subprocess.SubprocessError as error:
        clients = repr(error)
    programs = [line for line in output("ps", "-eo", "pid,etime,args").splitlines() if conf in line or "qemu" in line]
    return f"{clients}{programs}"


class Checker:
    """Looks at one sandbox from all sides."""

    def __init__(self, cluster: Cluster, clients: list[RandomClient]) -> None:
        self._cluster, self._clients = cluster, clients
        self._conf = str(ceph.conf(cluster.directory / "ceph"))

    def problems(self) -> list[str]:
        """Return what is not as it should be; a cluster that has settled has none."""
        try:
            return [
                *self._unfinished_tasks(),
                *(problem for client in self._clients for problem in self._lost(client)),
                *self._guests(),
                *self._volumes(),
                *self._networks(),
            ]
        except (AssertionError, OSError, subprocess.SubprocessError, libvirt.libvirtError) as error:
            return [f"cannot look: {error!r}"]

    def _unfinished_tasks(self) -> list[str]:
        found = []
        ours = tuple(f"built{client.number}-" for client in self._clients)
        tasks = [task for task in self._cluster.get("/provisioner/status") if task["name"].startswith(ours)]
        for task in tasks:
            if task["state"] not in OVER:
                found.append(f"task of VM {task['name']} is {task['state']}")
            elif task["leftovers"]:
                found.append(f"task of VM {task['name']} left {task['leftovers']}")
            there = self._find(VMS + task["name"]) is not None
            if task["state"] in OVER and there is not (task["state"] == "SUCCESS"):
                found.append(f"task of VM {task['name']} is {task['state']}, and the VM's existence is {there}")
        return found

    def _lost(self, client: RandomClient) -> list[str]:
        """Return the things that are in none of the states in which their client left them."""
        found = []
        for path, possible in client.model.possible.items():
            there = self._find(path)
            if not any(agrees(there, each) for each in possible):
                found.append(f"{path} is {there}, and should be {' or '.join(map(str, possible))}")
        return found

    def _find(self, path: str) -> dict[str, Any] | None:
        status, body = self._cluster.ask("GET", path)
        assert status == 200 or body["code"].endswith("-not-found"), body
        return dict(body[0]) if status == 200 and body else None

    def _guests(self) -> list[str]:
        wanted = sorted(vm["name"] for vm in self._cluster.get("/vm") if vm["running"])
        connection = libvirt.open(libvirtd.uri(self._cluster.directory / LIBVIRT))
        try:
            known = sorted(domain.name() for domain in connection.listAllDomains())
        finally:
            connection.close()
        running = sorted(Counter(qemus(self._cluster).values()).elements())
        return [] if wanted == known == running else [f"guests: API {wanted}, libvirt {known}, QEMU {running}"]

    def _volumes(self) -> list[str]:
        listed = json.loads(output("rbd", "--conf", self._conf, "ls", "-l", "--format", "json", ceph.POOL))
        real = sorted(f"{each['image']}@{each.get('snapshot', '')}" for each in listed)
        volumes = [f"{each['name']}@" for each in self._cluster.get("/storage/ceph/volume")]
        snapshots = self._cluster.get("/storage/ceph/volume/snapshot")
        known = sorted([*volumes, *(f"{each['volume']}@{each['snapshot']}" for each in snapshots)])
        return [] if real == known else [f"volumes: API {known}, Ceph {real}"]

    def _networks(self) -> list[str]:
        networks = self._cluster.get("/network")
        wanted = sorted(f"vmbr{network['vni']}" for network in networks)
        found = [] if wanted == (real := bridges()) else [f"networks: API {wanted}, bridges {real}"]
        served = sum(is_dnsmasq(pid, self._cluster) for pid in processes())
        if served < bool(networks):
            found.append(f"networks: API {wanted}, dnsmasq {served}")
        ruleset = output("nft", "list", "ruleset")
        for network in networks:
            rules = [acl["rule"] for acl in self._cluster.get(f"/network/{network['description']}/acl")]
            found += [f"network {network['vni']} has no rule {rule}" for rule in rules if rule not in ruleset]
        return found

    def left(self, before: Traces) -> list[str]:
        """Return what is not as it was before."""
        try:
            now = traces(self._cluster)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            return [f"cannot look: {error!r}"]
        differences = {kind: compared(before[kind], now[kind]) for kind in before}
        return [f"{kind}: {difference}" for kind, difference in differences.items() if difference]


def agrees(there: dict[str, Any] | None, wanted: State) -> bool:
    """Return whether a thing, as the API shows it, is in a state; a VM runs if it should, and only then."""
    if there is None or wanted is None:
        return there is wanted
    shown = {**there, **there.get("stats", {})}
    if "running" in there and there["running"] is not (there["state"] == "start"):
        return False
    return all(shown.get(name) == SETTLED.get(value, value) for name, value in wanted.items())


def bridges() -> list[str]:
    return sorted(link["ifname"] for link in json.loads(output("ip", "-j", "link", "show", "type", "bridge")))


def qemus(cluster: Cluster) -> dict[int, str]:
    """Return the processes of guests, each with the guest's name."""
    found = {}
    for process in libvirtd.processes(cluster.directory / LIBVIRT):
        with contextlib.suppress(OSError):
            argv = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if "-uuid" in argv:
                found[process.pid] = argv[argv.index("-name") + 1].removeprefix("guest=").partition(",")[0]
    return found


def watch_guests(cluster: Cluster, journal: Journal, stop: threading.Event) -> None:
    """Note each guest that runs twice. Two looks must see both processes: libvirtd's own child is one for a moment."""
    before: dict[int, str] = {}
    while not stop.wait(0.5):
        now = qemus(cluster)
        names = Counter(name for pid, name in now.items() if pid in before)
        for name in (name for name, count in names.items() if count > 1):
            journal.violation(f"VM {name} runs {names[name]} times: {sorted(now.items())}")
        before = now
