"""Everything that the operations of the API leave on a machine: in the store, on disk, in the kernel and in Ceph."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from pvcd_plugins.sandbox import ceph
from tests.integration.cluster import Cluster
from tests.integration.faults import command, mounts, processes

Traces = dict[str, Counter[str]]
STAYS_IN_STORE = {
    "/zookeeper": "ZooKeeper's own",
    "/provisioner/counter": "the last id, which no later template may get again",
    "/tasks/": "the history of tasks, which their workers shorten",
}
STAYS_ON_DISK = {
    "log": "what the servers say",
    "zookeeper": "the database of ZooKeeper",
    "redis": "the database of Redis",
    "ceph.lock": "empty; each lock of a volume is a byte of it",
    "ceph": "the databases of Ceph, whose OSDs are compared as such",
    "libvirt/log": "what QEMU says",
    "libvirt/cache": "shared with other sandboxes",
    "state.json": "of the supervisor",
}
MAY_BE_EMPTY = ("/node-commands/pvchv1", "mapping")
"""What is made for others when it is first needed; that which is below is compared."""
TRANSIENT = re.compile(r"^(\S*/)?(python3? )?(\S*/)?(ceph|rbd|rados|nft|ip) ")
"""Programs that the agents run all the time."""
SETTLED_SECONDS, SETTLING_SECONDS = 15.0, 180.0
"""Longer than the primary takes to see what was removed from Ceph, and to sweep the store."""


def traces(cluster: Cluster) -> Traces:
    """Return all that there is, by kind."""
    return {
        "znodes": Counter(znodes(cluster)),
        "files": Counter(files(cluster.directory)),
        "processes": Counter(each for each in map(command, processes()) if each and not TRANSIENT.match(each)),
        "mounts": Counter({line for pid in processes() for line in mounts(pid) if str(cluster.directory) in line}),
        "loop devices": Counter(loops(cluster.directory)),
        "links": Counter(links()),
        "rules": Counter(rules()),
        "Ceph": Counter(in_ceph(cluster.directory)),
    }


def znodes(cluster: Cluster) -> Iterator[str]:
    """The paths of all znodes, those without data too."""
    with cluster.zookeeper() as client:
        yield from below(client, "/")


def below(client: KazooClient, path: str) -> Iterator[str]:
    with contextlib.suppress(NoNodeError):  # it has just gone
        for name in client.get_children(path):
            child = f"{path.rstrip('/')}/{name}"
            if not child.startswith(tuple(STAYS_IN_STORE)):
                yield from (child,) if child not in MAY_BE_EMPTY else ()
                yield from below(client, child)


def files(directory: Path) -> Iterator[str]:
    """The files and folders of a sandbox, and what it has outside of it."""
    for folder, folders, names in os.walk(directory):
        at = Path(folder).relative_to(directory)
        folders[:] = [name for name in folders if str(at / name) not in STAYS_ON_DISK]
        found = [str(at / name) for name in (*folders, *names)]
        yield from (name for name in found if name not in STAYS_ON_DISK and name not in MAY_BE_EMPTY)
    for place in ("/tmp", "/run", "/var/tmp"):
        yield from (str(path) for path in Path(place).glob("pvcd*") if owned(path, directory))


def owned(path: Path, directory: Path) -> bool:
    """Whether a link leads to the sandbox; other sandboxes may run beside it."""
    return path.is_symlink() and str(directory) in os.readlink(path)


def loops(directory: Path) -> list[str]:
    listed = json.loads(ran("losetup", "--json", "--list") or '{"loopdevices": []}')["loopdevices"]
    return [each["back-file"] for each in listed if (each["back-file"] or "").startswith(str(directory))]


def links() -> list[str]:
    """Links of this network namespace with their addresses."""
    listed = json.loads(ran("ip", "-json", "address"))
    addresses = [(link["ifname"], each["local"]) for link in listed for each in link["addr_info"]]
    return [*(link["ifname"] for link in listed), *map(str, addresses)]


def rules() -> list[str]:
    """The lines of the packet filter, and the routing rules."""
    lines = ran("nft", "list", "ruleset").splitlines()
    return [re.sub(r"counter packets \d+ bytes \d+", "counter", line) for line in lines]


def in_ceph(directory: Path) -> Iterator[str]:
    """Pools, volumes, snapshots, trash, OSDs with their folders and keys, and flags."""
    conf = ("--conf", str(ceph.conf(directory / "ceph")))
    for pool in ran("ceph", *conf, "osd", "pool", "ls").split():
        yield f"pool {pool}"
        if not pool.startswith("."):
            rows = json.loads(ran("rbd", *conf, "ls", "-l", pool, "--format", "json"))
            yield from (f"{pool}/{row['image']}@{row.get('snapshot')}" for row in rows)
            yield from (
                f"trash {each['name']}"
                for each in json.loads(ran("rbd", *conf, "trash", "ls", pool, "--format", "json"))
            )
    dump = json.loads(ran("ceph", *conf, "osd", "dump", "--format", "json"))
    yield from (f"osd {osd['osd']} {osd['up']} {osd['in']}" for osd in dump["osds"])
    yield from (f"flag {flag}" for flag in dump["flags"].split(","))
    tree = json.loads(ran("ceph", *conf, "osd", "tree", "--format", "json"))
    yield from (f"tree {node['name']}" for node in (*tree["nodes"], *tree["stray"]))
    keys = json.loads(ran("ceph", *conf, "auth", "ls", "--format", "json"))["auth_dump"]
    yield from (f"key {key['entity']}" for key in keys)
    yield from (f"folder {path.name}" for path in (directory / "ceph" / "osd").glob("*"))


def ran(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


class Before:
    """What there was before anything was done."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.traces, self._since = traces(cluster), time.monotonic()
        cluster.until(self._is_settled, SETTLING_SECONDS)

    def _is_settled(self) -> bool:
        """Whether nothing has changed for a while: what other tests had may still be going."""
        now = traces(self._cluster)
        if any(now[kind] != self.traces[kind] for kind in ("znodes", "files", "Ceph")):
            self._since = time.monotonic()
        self.traces = now
        return time.monotonic() - self._since > SETTLED_SECONDS

    def is_restored(self, seconds: float) -> None:
        """Assert that each kind of traces comes to be as it was."""
        waiting: dict[str, str] = {}

        def as_before() -> bool:
            now = traces(self._cluster)
            kinds = waiting or self.traces
            found = {kind: compared(self.traces[kind], now[kind]) for kind in kinds}
            waiting.clear()
            waiting.update({kind: difference for kind, difference in found.items() if difference})
            return not waiting

        try:
            self._cluster.until(as_before, seconds)
        except AssertionError:
            raise AssertionError("\n".join(f"{kind}: {difference}" for kind, difference in waiting.items())) from None


def compared(before: Counter[str], now: Counter[str]) -> str:
    words = [f"gone {sorted(before - now)}"] if before - now else []
    return ", ".join([*words, *([f"new {sorted(now - before)}"] if now - before else [])])
