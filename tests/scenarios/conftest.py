"""Clusters as text: each file of this folder is one scenario, run on the real API and agents in virtual time.

The first paragraph says what must hold. There is a Ceph with a pool `vms`, an OSD on each node, and another device
`/dev/NODEb` there. Then one step per line:

    define NAME [KEY=VALUE ...]           define a VM; the keys are those of POST /vm, and memory, type, emulator,
                                          volumes=POOL/NAME,... and nics=VNI/MAC,...
    redefine NAME [KEY=VALUE ...]         replace its definition
    METHOD PATH [KEY=VALUE ...] -> STATUS [JSON]   a request under /api/v1; the JSON must be part of the body
    within SECONDS METHOD PATH [KEY=VALUE ...] -> STATUS [JSON]   the same, letting time pass until the reply
    after SECONDS                         let time pass
    guest NAME dies | ignores shutdown | hangs | becomes unreadable | runs on NODE | runs nowhere
    libvirt on NODE stops | starts
    agent of NODE dies | stops | starts
    store stops | starts
    ceph stops | starts
    ceph gets | loses volume POOL/NAME    of 1 GiB, by another client
    client opens | closes POOL/NAME       a volume, by another client
    osd NUMBER dies
    site hook OPERATION.PHASE refuses WORDS | agrees      from now on
    site hooks ran OPERATION.PHASE ...    those that agreed since the last such line
    node NODE started N guests            the number of successful starts on it so far
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, UUID, uuid5

import pytest

from pvcd.declare.operations import SITE_HOOKS
from pvcd.sitehooks.fake import FakeHooks, Script
from pvcd.testing import SimulatedCluster, opened
from pvcd_plugins.ceph.cluster.fake import FakeCluster, FakeOsdHost
from pvcd_plugins.ceph.components import CLUSTER, OSD_HOST
from pvcd_plugins.vm.components import HYPERVISOR
from pvcd_plugins.vm.hypervisor.fake import FakeHypervisor

FOLDER = Path(__file__).parent
EMULATOR = "/usr/bin/qemu-system-x86_64"


def uuid_of(name: str) -> UUID:
    return uuid5(NAMESPACE_DNS, name)


def domain_xml(
    name: str, memory: str = "128", type: str = "qemu", emulator: str = EMULATOR, volumes: str = "", nics: str = ""
) -> str:
    disks = "".join(
        f"<disk type='network' device='disk'><source protocol='rbd' name='{volume}'/>"
        f"<target dev='vd{letter}' bus='virtio'/></disk>"
        for letter, volume in zip("abcdefgh", filter(None, volumes.split(",")), strict=False)
    )
    interfaces = "".join(
        f"<interface type='bridge'><mac address='{mac}'/><source bridge='vmbr{vni}'/></interface>"
        for vni, _, mac in (nic.partition("/") for nic in filter(None, nics.split(",")))
    )
    return (
        f"<domain type='{type}'><name>{name}</name><uuid>{uuid_of(name)}</uuid><memory unit='MiB'>{memory}</memory>"
        f"<vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os><devices><emulator>{emulator}</emulator>"
        f"{disks}{interfaces}<serial type='pty'/></devices></domain>"
    )


def contains(part: Any, whole: Any) -> bool:
    """Return whether a JSON value contains all of another."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(contains, part, whole))
    return bool(part == whole)


class Scenario:
    def __init__(self, text: str) -> None:
        heading, _, body = text.partition("\n\n")
        self.heading = heading
        nodes = re.search(r"^nodes (.+)$", body, re.M)
        self.nodes = nodes[1].split() if nodes else ["hv1"]
        self.lines = [line for line in body.splitlines() if line.strip() and not line.startswith(("#", "nodes "))]
        self.steps: list[tuple[re.Pattern[str], Callable[..., Any]]] = [
            (re.compile(r"define (\S+)(.*?)(?: -> (\d+)(.*))?$"), self.define),
            (re.compile(r"redefine (\S+)(.*?)(?: -> (\d+)(.*))?$"), self.redefine),
            (re.compile(r"(GET|POST|PUT|DELETE) (\S+)(.*?) -> (\d+)(.*)$"), self.request),
            (re.compile(r"within ([\d.]+) (GET|POST|PUT|DELETE) (\S+)(.*?) -> (\d+)(.*)$"), self.long_request),
            (re.compile(r"after ([\d.]+)$"), self.after),
            (re.compile(r"guest (\S+) dies$"), self.guest_dies),
            (re.compile(r"guest (\S+) ignores shutdown$"), self.guest_ignores),
            (re.compile(r"guest (\S+) hangs$"), self.guest_hangs),
            (re.compile(r"guest (\S+) becomes unreadable$"), self.guest_spoils),
            (re.compile(r"guest (\S+) runs (?:on (\S+)|nowhere)$"), self.guest_runs),
            (re.compile(r"libvirt on (\S+) (stops|starts)$"), self.libvirt),
            (re.compile(r"agent of (\S+) (dies|stops|starts)$"), self.agent),
            (re.compile(r"store (stops|starts)$"), self.store),
            (re.compile(r"ceph (stops|starts)$"), self.ceph_stops),
            (re.compile(r"ceph (gets|loses) volume (\S+)/(\S+)$"), self.others_change),
            (re.compile(r"client (opens|closes) (\S+)/(\S+)$"), self.client),
            (re.compile(r"osd (\d+) dies$"), self.osd_dies),
            (re.compile(r"site hook (\S+) (refuses (.+)|agrees)$"), self.hook),
            (re.compile(r"site hooks ran(.*)$"), self.hooks_ran),
            (re.compile(r"node (\S+) started (\d+) guests$"), self.started),
        ]

    async def play(self) -> None:
        self.hypervisors: dict[str, FakeHypervisor] = {}

        def fake(context: Any) -> Any:
            if context.node not in self.hypervisors:
                self.hypervisors[context.node] = FakeHypervisor(context.clock)
            return self.hypervisor_for(context)

        replace: dict[Any, Any] = {HYPERVISOR: fake, CLUSTER: self.open_ceph, OSD_HOST: self.open_osd_host}
        self.scripts: dict[str, Script] = {}
        self.ran: list[str] = []
        replace[SITE_HOOKS] = lambda context: FakeHooks(self.scripts).open(context)
        self.cluster = SimulatedCluster(
            self.nodes, replace=replace, keepalive={"interval": 1}, ceph={"refresh_seconds": 5}
        )
        self.ceph = FakeCluster(self.cluster.clock, drain_seconds=30)
        self.osd_hosts = {node: FakeOsdHost(self.ceph, node, [f"/dev/{node}a", f"/dev/{node}b"]) for node in self.nodes}
        for node, host in self.osd_hosts.items():
            await host.prepare_osd(f"/dev/{node}a", 1.0)
        await self.ceph.create_pool("vms", 8, 1, 1)
        async with self.cluster:
            await self.cluster.advance(2)
            for line in self.lines:
                for pattern, step in self.steps:
                    match = pattern.fullmatch(line.strip())
                    if match:
                        try:
                            await step(*match.groups())
                        except AssertionError as error:
                            raise AssertionError(f"{line}\n{error}") from None
                        break
                else:
                    pytest.fail(f"unknown step: {line!r}")

    def open_ceph(self, context: Any) -> Any:
        return opened(self.ceph)

    def open_osd_host(self, context: Any) -> Any:
        return opened(self.osd_hosts[context.node])

    def hypervisor_for(self, context: Any) -> Any:
        from contextlib import asynccontextmanager

        from pvcd_plugins.vm.components import wake_vms

        hypervisor = self.hypervisors[context.node]

        @asynccontextmanager
        async def open_it() -> Any:
            hypervisor._listeners.clear()
            hypervisor.listen(lambda uuid: wake_vms(context, uuid))
            await hypervisor.open()
            async with opened(hypervisor):
                yield hypervisor
            await hypervisor.close()

        return open_it()

    async def define(self, name: str, rest: str, status: str | None, expected: str | None) -> None:
        reply = await self.cluster.request("POST", "/api/v1/vm", **self.defined(name, rest))
        self.check(reply, status or "200", expected)

    async def redefine(self, name: str, rest: str, status: str | None, expected: str | None) -> None:
        reply = await self.cluster.request("PUT", f"/api/v1/vm/{name}", **self.defined(name, rest))
        self.check(reply, status or "200", expected)

    def defined(self, name: str, rest: str) -> dict[str, str]:
        values = self.values(rest)
        shape = {key: values.pop(key) for key in ("memory", "type", "emulator", "volumes", "nics") if key in values}
        return values | {"xml": domain_xml(name, **shape)}

    async def request(self, method: str, path: str, rest: str, status: str, expected: str) -> None:
        reply = await self.cluster.request(method, "/api/v1" + path, **self.values(rest))
        self.check(reply, status, expected)

    async def long_request(self, seconds: str, method: str, path: str, rest: str, status: str, expected: str) -> None:
        asking = asyncio.ensure_future(self.cluster.request(method, "/api/v1" + path, **self.values(rest)))
        end = self.cluster.clock.time() + float(seconds)
        while not asking.done() and self.cluster.clock.time() < end:
            await self.cluster.advance(0.5)
        assert asking.done(), f"no reply after {seconds} s"
        self.check(asking.result(), status, expected)

    def check(self, reply: Any, status: str, expected: str | None) -> None:
        assert reply.status == int(status), reply.body.decode()
        if expected and expected.strip():
            assert contains(json.loads(expected), reply.json), json.dumps(reply.json, indent=1)

    @staticmethod
    def values(rest: str) -> dict[str, str]:
        return dict(word.split("=", 1) if "=" in word else (word, "") for word in shlex.split(rest))

    async def after(self, seconds: str) -> None:
        await self.cluster.advance(float(seconds))

    async def guest_dies(self, name: str) -> None:
        for hypervisor in self.hypervisors.values():
            hypervisor.kill(uuid_of(name))

    async def guest_ignores(self, name: str) -> None:
        for hypervisor in self.hypervisors.values():
            hypervisor.ignores_shutdown.add(uuid_of(name))

    async def guest_hangs(self, name: str) -> None:
        for hypervisor in self.hypervisors.values():
            hypervisor.hang(uuid_of(name))

    async def guest_spoils(self, name: str) -> None:
        for hypervisor in self.hypervisors.values():
            hypervisor.spoil(uuid_of(name))

    async def guest_runs(self, name: str, node: str | None) -> None:
        where = [host for host, hypervisor in self.hypervisors.items() if uuid_of(name) in hypervisor._guests]
        assert where == ([node] if node else []), f"it runs on {where}"

    async def libvirt(self, node: str, what: str) -> None:
        hypervisor = self.hypervisors[node]
        hypervisor.stop() if what == "stops" else hypervisor.start_again()

    async def agent(self, node: str, what: str) -> None:
        act = {
            "dies": self.cluster.kill_agent,
            "stops": self.cluster.stop_agent,
            "starts": self.cluster.start_agent,
        }[what]
        await act(node)

    async def store(self, what: str) -> None:
        self.cluster.server.stop() if what == "stops" else self.cluster.server.start()

    async def ceph_stops(self, what: str) -> None:
        self.ceph.stopped = what == "stops"

    async def others_change(self, what: str, pool: str, volume: str) -> None:
        await (
            self.ceph.create_volume(pool, volume, 1 << 30) if what == "gets" else self.ceph.remove_volume(pool, volume)
        )

    async def client(self, what: str, pool: str, volume: str) -> None:
        self.ceph.open_volume(pool, volume) if what == "opens" else self.ceph.close_volume(pool, volume)

    async def osd_dies(self, number: str) -> None:
        self.ceph.mark(int(number), up=False)

    async def hook(self, place: str, what: str, words: str | None) -> None:
        def script(run: Any) -> str | None:
            if words is None:
                self.ran.append(place)
            return words

        self.scripts[place] = script

    async def hooks_ran(self, places: str) -> None:
        ran, self.ran[:] = list(self.ran), []
        assert ran == places.split()

    async def started(self, node: str, count: str) -> None:
        starts = len(self.hypervisors[node].started)
        assert starts == int(count), f"it started {starts}"
