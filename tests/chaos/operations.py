"""A random client: valid operations, drawn from a table, on things that are its own."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.error import URLError

from pvcd_plugins.sandbox import ceph
from tests.chaos.model import Journal, Model, Outcome, Request
from tests.client import Client
from tests.integration.cluster import Guests

VMS, NETWORKS = "/vm/", "/network/"
VOLUMES = f"/storage/ceph/volume/{ceph.POOL}/"
SNAPSHOTS = f"/storage/ceph/volume/snapshot/{ceph.POOL}/"
TASKS = "/provisioner/create"
PROFILE = "chaos"
MIB = 1024 * 1024
MOST = 4
"""Of each kind, a client has at most so many things of which it is certain."""
ERRORS = {"Accept": "application/problem+json"}
"""Each failure has its true status then, which tells whether anything was changed."""


@dataclass(frozen=True)
class Choice:
    """A kind of operation, and how often it is drawn."""

    weight: int
    make: Callable[[RandomClient], Request | None]


class RandomClient:
    """Draws operations and keeps the model of what they have made."""

    def __init__(self, api: str, seed: str, number: int, guests: Guests, journal: Journal) -> None:
        self.model, self.number, self.guests = Model(), number, guests
        self.random = random.Random(f"{seed}/{number}")
        self.tasks: dict[str, str] = {}
        """Name of a VM -> the id of the task that builds it."""
        self._client = Client(api)
        self._client.headers = ERRORS
        self._journal = journal
        self._names = count()

    def run(self, stop: threading.Event) -> None:
        """Send requests until it is to stop."""
        weights = [choice.weight for choice in OPERATIONS]
        while not stop.is_set():
            [choice] = self.random.choices(OPERATIONS, weights)
            request = choice.make(self)
            if request is not None:
                self.perform(request)
            stop.wait(self.random.uniform(0.05, 0.5))

    def perform(self, request: Request) -> Outcome:
        """Send a request, and note what it has done."""
        try:
            reply = self._client.send(request.method, request.path, form=request.values)
            answer = f"{reply.status} {reply.body[:300].decode(errors='replace')}"
            outcome = outcome_of(reply.status)
            if outcome is Outcome.ACKNOWLEDGED and request.path == TASKS:
                self.tasks[request.values["name"]] = reply.json["task_id"]
            if reply.status == 500:
                self._journal.violation(f"{request}: {answer}")
        except OSError as error:
            never_sent = isinstance(error, URLError) and isinstance(error.reason, ConnectionRefusedError)
            answer, outcome = repr(error), Outcome.REFUSED if never_sent else Outcome.UNKNOWN
        self._journal.note(f"client {self.number}: {request} -> {outcome}: {answer.strip()}")
        self._journal.count(outcome)
        self.model.apply(request, outcome)
        return outcome

    def name(self, kind: str) -> str:
        """Return a name that was never used."""
        return f"{kind}{self.number}-{next(self._names)}"

    def pick(self, prefix: str, depth: int = 1) -> tuple[str, Mapping[str, Any]] | None:
        """Return one of the things that are certainly there."""
        things = sorted(self.model.certain(prefix, depth).items())
        return self.random.choice(things) if things else None

    def room(self, prefix: str, depth: int = 1) -> bool:
        """Return whether there may be another thing of a kind."""
        return len(self.model.certain(prefix, depth)) < MOST


def outcome_of(status: int) -> Outcome:
    """Return what a true status says, as docs/errors.md promises it."""
    if status == 200:
        return Outcome.ACKNOWLEDGED
    return Outcome.REFUSED if 400 <= status < 500 else Outcome.UNKNOWN


def define(client: RandomClient) -> Request | None:
    """Define a VM, half of them with a volume."""
    if not client.room(VMS):
        return None
    name, volume = client.name("vm"), client.pick(VOLUMES)
    xml = client.guests.sector(name)
    if volume is not None and client.random.random() < 0.5:
        source = f"<source protocol='rbd' name='{ceph.POOL}/{volume[0].removeprefix(VOLUMES)}'/>"
        disk = f"<disk type='network' device='disk'>{source}<target dev='vdz' bus='virtio'/></disk>"
        xml = xml.replace("</devices>", f"{disk}</devices>")
    return Request("POST", "/vm", {VMS + name: {"state": "stop", "node_autostart": False}}, {"xml": xml})


def set_state(client: RandomClient) -> Request | None:
    """Start or stop a VM; a request to its power button, which these guests ignore, is rare."""
    vm = client.pick(VMS)
    if vm is None:
        return None
    weights = {"stop": 6, "shutdown": 1, "restart": 1} if vm[1]["state"] == "start" else {"start": 8, "disable": 2}
    [state] = client.random.choices([*weights], [*weights.values()])
    return Request("POST", f"{vm[0]}/state", {vm[0]: {**vm[1], "state": state}}, {"state": state})


def set_autostart(client: RandomClient) -> Request | None:
    """Change a VM's metadata."""
    vm = client.pick(VMS)
    if vm is None:
        return None
    wanted = not vm[1]["node_autostart"]
    values = {"autostart" if wanted else "no-autostart": "true"}
    return Request("POST", vm[0], {vm[0]: {**vm[1], "node_autostart": wanted}}, values)


def remove(prefix: str, depth: int = 1) -> Callable[[RandomClient], Request | None]:
    """Return the operation that removes a thing with its parts."""

    def make(client: RandomClient) -> Request | None:
        thing = client.pick(prefix, depth)
        if thing is None:
            return None
        return Request("DELETE", thing[0], dict.fromkeys([thing[0], *client.model.below(thing[0])]))

    return make


def remove_acl(client: RandomClient) -> Request | None:
    """Remove an ACL, which takes its direction."""
    acl = next((each for each in client.model.certain(NETWORKS, 3) if "/acl/" in each), None)
    return acl and Request("DELETE", acl, {acl: None}, {"direction": "in"})  # type: ignore[return-value]


def remove_lease(client: RandomClient) -> Request | None:
    """Remove a static lease."""
    lease = next((each for each in client.model.certain(NETWORKS, 3) if "/lease/" in each), None)
    return lease and Request("DELETE", lease, {lease: None})  # type: ignore[return-value]


def add_network(client: RandomClient) -> Request | None:
    """Add a managed network with DHCP."""
    if not client.room(NETWORKS):
        return None
    name = client.name("net")
    number = int(name.rpartition("-")[2])
    vni, net = 1000 * (client.number + 1) + number, f"10.{100 + client.number}.{number % 256}"
    values = {
        "vni": vni,
        "description": name,
        "nettype": "managed",
        "ip4_network": f"{net}.0/24",
        "ip4_gateway": f"{net}.1",
        "dhcp4": "true",
        "dhcp4_start": f"{net}.100",
        "dhcp4_end": f"{net}.199",
    }
    return Request("POST", "/network", {NETWORKS + name: {"vni": vni, "description": name}}, values)


def modify_network(client: RandomClient) -> Request | None:
    """Give a network another domain."""
    network = client.pick(NETWORKS)
    if network is None:
        return None
    domain = f"{client.name('d')}.example"
    return Request("PUT", network[0], {network[0]: {**network[1], "domain": domain}}, {"domain": domain})


def add_acl(client: RandomClient) -> Request | None:
    """Add an ACL to a network."""
    network = client.pick(NETWORKS)
    if network is None:
        return None
    name, rule = client.name("acl"), f"tcp dport {client.random.randrange(1, 65535)} accept"
    values = {"description": name, "direction": "in", "rule": rule}
    return Request("POST", f"{network[0]}/acl", {f"{network[0]}/acl/{name}": {"description": name}}, values)


def add_lease(client: RandomClient) -> Request | None:
    """Reserve an address of a network."""
    network = client.pick(NETWORKS)
    if network is None:
        return None
    number = next(client._names)
    mac = f"52:54:00:{client.number:02x}:{number // 256:02x}:{number % 256:02x}"
    octet = int(network[0].rpartition("-")[2]) % 256
    address = f"10.{100 + client.number}.{octet}.{2 + number % 90}"
    values = {"macaddress": mac, "ipaddress": address}
    effects = {f"{network[0]}/lease/{mac}": {"mac_address": mac, "ip4_address": address}}
    return Request("POST", f"{network[0]}/lease", effects, values)


def add_volume(client: RandomClient) -> Request | None:
    """Add a volume, or a copy of one."""
    if not client.room(VOLUMES):
        return None
    name, source = client.name("vol"), client.pick(VOLUMES)
    values: dict[str, Any] = {"volume": name, "pool": ceph.POOL}
    if source is not None and client.random.random() < 0.3:
        values["source_volume"], size = source[0].removeprefix(VOLUMES), source[1]["size_bytes"]
    else:
        size = client.random.randrange(1, 64) * MIB
        values["size"] = f"{size}B"
    return Request("POST", "/storage/ceph/volume", {VOLUMES + name: {"size_bytes": size}}, values)


def resize_volume(client: RandomClient) -> Request | None:
    """Let a volume grow."""
    volume = client.pick(VOLUMES)
    if volume is None:
        return None
    size = volume[1]["size_bytes"] + MIB
    return Request("PUT", volume[0], {volume[0]: {"size_bytes": size}}, {"size": f"{size}B"})


def rename_volume(client: RandomClient) -> Request | None:
    """Rename a volume without snapshots."""
    volume = client.pick(VOLUMES)
    if volume is None or client.model.below(SNAPSHOTS + volume[0].removeprefix(VOLUMES)):
        return None
    name = client.name("vol")
    return Request("PUT", volume[0], {volume[0]: None, VOLUMES + name: volume[1]}, {"name": name})


def add_snapshot(client: RandomClient) -> Request | None:
    """Take a snapshot of a volume."""
    volume = client.pick(VOLUMES)
    if volume is None:
        return None
    name, of = client.name("snap"), volume[0].removeprefix(VOLUMES)
    values = {"snapshot": name, "volume": of, "pool": ceph.POOL}
    return Request("POST", "/storage/ceph/volume/snapshot", {f"{SNAPSHOTS}{of}/{name}": {"snapshot": name}}, values)


def build(client: RandomClient) -> Request | None:
    """Have a VM built; its task says at the end whether it is there."""
    values = {"name": client.name("built"), "profile": PROFILE, "start_vm": "false"}
    return Request("POST", TASKS, {}, values) if len(client.tasks) < 3 * MOST else None


def cancel(client: RandomClient) -> Request | None:
    """Cancel the last task, which may be over."""
    task = next(reversed(client.tasks.values()), None)
    return Request("DELETE", f"/provisioner/status/{task}", {}) if task else None


OPERATIONS = [
    Choice(6, define),
    Choice(20, set_state),
    Choice(6, set_autostart),
    Choice(3, remove(VMS)),
    Choice(4, add_network),
    Choice(4, modify_network),
    Choice(6, add_acl),
    Choice(3, remove_acl),
    Choice(6, add_lease),
    Choice(3, remove_lease),
    Choice(2, remove(NETWORKS)),
    Choice(5, add_volume),
    Choice(3, resize_volume),
    Choice(3, rename_volume),
    Choice(4, add_snapshot),
    Choice(3, remove(SNAPSHOTS, 2)),
    Choice(2, remove(VOLUMES)),
    Choice(2, build),
    Choice(1, cancel),
]
