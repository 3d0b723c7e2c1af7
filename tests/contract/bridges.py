"""Benches for the suite of the door to a node's links: the fake, and the kernel in network namespaces of our own.

As a program it is a node: it runs the real door in the namespace where it was started, for the test that controls it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any, NoReturn, Protocol

import pytest

from pvcd.clock import VirtualClock
from pvcd.programs.runner import run
from pvcd_plugins.network.bridge import Address, Bridge, Bridges, Gateway, bridge_name, uplink_name
from pvcd_plugins.network.bridge.fake import FakeBridges
from pvcd_plugins.network.bridge.linux import LinuxBridges
from tests.contract.remote import Remote, serve

LIMIT = 60.0
_numbers = itertools.count()


class Bench(Protocol):
    """One node, and what a test does and sees from outside."""

    bridges: Bridges

    async def links(self) -> set[str]:
        """Names of all bridges, tunnels and VLANs."""

    async def peers(self, vni: int) -> set[Address]:
        """Return the remote addresses of a network's tunnel."""

    async def addresses(self, vni: int) -> set[Gateway]:
        """Return the addresses of a network's bridge."""

    async def add_foreign(self, name: str) -> None:
        """Create a link as another program would."""

    async def spoil(self, vni: int) -> None:
        """Let the making of a network's bridge fail."""

    async def lose_address(self) -> None:
        """Let the node have no address for tunnels."""

    async def wait(self) -> None:
        """Let a short time pass."""


async def until(bench: Bench, holds: Callable[[], Awaitable[bool]], limit: float = LIMIT) -> None:
    """Return when a condition holds."""
    async with asyncio.timeout(limit):
        while not await holds():
            await bench.wait()


class FakeBench:
    """The fake, which is scripted."""

    def __init__(self) -> None:
        self._clock = VirtualClock()
        self.fake = FakeBridges(ip_address("10.99.0.1"), clock=self._clock)
        self.bridges: Bridges = self.fake

    async def links(self) -> set[str]:
        ours = self.fake.bridges.values()
        return {name for each in ours for name in (bridge_name(each.vni), uplink_name(each))} | self.fake.foreign

    async def peers(self, vni: int) -> set[Address]:
        return set(self.fake.peers[vni])

    async def addresses(self, vni: int) -> set[Gateway]:
        return set(self.fake.addresses(vni))

    async def add_foreign(self, name: str) -> None:
        self.fake.foreign.add(name)

    async def spoil(self, vni: int) -> None:
        self.fake.broken[vni] = f"Cannot create bridge {bridge_name(vni)!r}: another link has its VNI."

    async def lose_address(self) -> None:
        self.fake.here = None

    async def wait(self) -> None:
        await self._clock.advance(0.2)


class RemoteBridges(Remote):
    """The real door in another process."""

    async def address(self) -> Address:
        return await self.call("address")  # type: ignore[no-any-return]

    async def mtu(self) -> int:
        return await self.call("mtu")  # type: ignore[no-any-return]

    async def apply(self, wanted: Collection[Bridge], peers: Collection[Address]) -> dict[int, str]:
        return await self.call("apply", list(wanted), list(peers))  # type: ignore[no-any-return]

    async def hold(self, gateways: Mapping[int, Collection[Gateway]], seconds: float) -> dict[int, str]:
        return await self.call("hold", gateways, seconds)  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        await self.call("aclose")


async def main(device: str | None, vlan_device: str | None) -> None:
    """Be a node, for the test that controls it."""
    async with LinuxBridges(device, vlan_device) as bridges:
        await serve(lambda name, *values: getattr(bridges, name)(*values))


class Host:
    """A network namespace with a loopback device: a node, a guest, or the switch between nodes."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    async def ip(self, words: str) -> None:
        """Run `ip` here."""
        await run(("ip", "-n", self.namespace, *words.split()), timeout=LIMIT)

    async def show(self, *words: str) -> Any:
        """Return the JSON output of `ip` or `bridge` in the namespace."""
        return json.loads(await self.output(*words) or "[]")

    async def output(self, *argv: str) -> str:
        """Return the output of a program in the namespace."""
        return (await run(("ip", "netns", "exec", self.namespace, *argv), timeout=LIMIT)).stdout.decode().strip()

    async def sysctl(self, path: str, value: str | None = None) -> str:
        """A setting of the kernel, after it was set."""
        file = f"/proc/sys/net/{path}"
        if value is not None:
            await self.output("/bin/sh", "-c", 'echo "$1" > "$2"', "sh", value, file)
        return await self.output("cat", file)

    async def link(self, name: str) -> dict[str, Any]:
        """Return everything that `ip` shows of a link."""
        (link,) = await self.show("ip", "-j", "-d", "link", "show", name)
        return dict(link)

    async def pings(self, address: str, size: int = 56) -> bool:
        """Return whether an address answers, with unfragmented packets of that payload."""
        argv = ("ping", "-n", "-q", "-c1", "-W1", "-M", "do", "-s", str(size), address)
        result = await run(("ip", "netns", "exec", self.namespace, *argv), timeout=LIMIT, check=False)
        return result.returncode == 0


class Node(Host):
    """A node, as the bench of a test with one node."""

    def __init__(self, namespace: str) -> None:
        super().__init__(namespace)
        self.bridges: Bridges
        self._remotes: list[RemoteBridges] = []

    async def start(self, device: str | None = "up0", vlan_device: str | None = "up0") -> None:
        """Start a process with the door; the last one that was started is the node's."""
        devices = (device or "", vlan_device or "")
        self._remotes.append(await RemoteBridges.start(self.namespace, "tests.contract.bridges", *devices))
        self.bridges = self._remotes[-1]

    async def stop(self) -> None:
        """End its processes."""
        while self._remotes:
            await self._remotes.pop().end()

    async def links(self) -> set[str]:
        kinds = ("bridge", "vxlan", "vlan")
        links = await self.show("ip", "-j", "-d", "link", "show")
        return {link["ifname"] for link in links if link.get("linkinfo", {}).get("info_kind") in kinds}

    async def peers(self, vni: int) -> set[Address]:
        entries = await self.show("bridge", "-j", "fdb", "show", "dev", f"vxlan{vni}")
        return {ip_address(entry["dst"]) for entry in entries if entry["mac"] == "00:00:00:00:00:00"}

    async def addresses(self, vni: int) -> set[Gateway]:
        infos = await self.show("ip", "-j", "address", "show", "dev", bridge_name(vni))
        return {ip_interface(f"{info['local']}/{info['prefixlen']}") for info in infos[0]["addr_info"]}

    async def add_foreign(self, name: str) -> None:
        await self.ip(f"link add {name} type bridge")

    async def spoil(self, vni: int) -> None:
        await self.ip(f"link add other{vni} type vxlan id {vni} local 10.99.0.1 dstport 4789 dev up0")

    async def lose_address(self) -> None:
        await self.ip("address flush dev up0")

    async def wait(self) -> None:
        await asyncio.sleep(0.05)


class Wires:
    """Nodes on one switch, and guests on their bridges."""

    def __init__(self) -> None:
        self._name = f"pvcd-{os.getpid()}-{next(_numbers)}"
        self._hosts: list[Host] = []
        self._switch: Host | None = None

    async def _add(self, host: Host) -> None:
        await run(("ip", "netns", "add", host.namespace), timeout=LIMIT)
        self._hosts.append(host)
        await host.ip("link set lo up")

    async def node(self, *addresses: str) -> Node:
        """One more node, with these addresses on `up0`; its door is not started yet."""
        if self._switch is None:
            self._switch = Host(f"{self._name}-switch")
            await self._add(self._switch)
            await self._switch.ip("link add switch type bridge")
            await self._switch.ip("link set switch up")
        node = Node(f"{self._name}-{len(self._hosts)}")
        await self._add(node)
        port = f"port{len(self._hosts)}"
        await node.ip(f"link add up0 type veth peer name {port} netns {self._switch.namespace}")
        await self._switch.ip(f"link set {port} master switch up")
        await node.ip("link set up0 up")
        for address in addresses:
            await node.ip(f"address add {address} dev up0{' nodad' if ':' in address else ''}")
        return node

    async def guest(self, node: Node, vni: int, *addresses: str) -> Host:
        """A guest on a node's bridge."""
        guest = Host(f"{self._name}-{len(self._hosts)}")
        await self._add(guest)
        port = f"tap{len(self._hosts)}"
        mtu = (await node.link(bridge_name(vni)))["mtu"]
        await guest.ip(f"link add eth0 mtu {mtu} type veth peer name {port} mtu {mtu} netns {node.namespace}")
        await node.ip(f"link set {port} master {bridge_name(vni)} up")
        await guest.ip("link set eth0 up")
        for address in addresses:
            await guest.ip(f"address add {address} dev eth0{' nodad' if ':' in address else ''}")
        return guest

    async def end(self) -> None:
        """Remove everything, whatever state it is in."""
        async with contextlib.AsyncExitStack() as stack:
            for host in self._hosts:
                stack.push_async_callback(run, ("ip", "netns", "del", host.namespace), timeout=LIMIT)
            for host in self._hosts:
                if isinstance(host, Node):
                    stack.push_async_callback(host.stop)


def absent(what: str) -> NoReturn:
    """Skip a test if this machine lacks something, but fail it in CI."""
    if "CI" in os.environ:
        pytest.fail(what)
    pytest.skip(what)


@contextlib.asynccontextmanager
async def _wires() -> AsyncIterator[Wires]:
    if os.geteuid() != 0:
        absent("only root may make network namespaces")
    missing = [name for name in ("ip", "bridge", "ping") if not shutil.which(name)]
    if missing:
        absent(f"not installed here: {', '.join(missing)}")
    wires = Wires()
    try:
        yield wires
    finally:
        await wires.end()


@pytest.fixture(name="wires")
async def wires_fixture() -> AsyncIterator[Wires]:
    async with _wires() as wires:
        yield wires


@pytest.fixture(params=["fake", "kernel"], name="bench")
async def bench_fixture(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "fake":
        yield FakeBench()
        return
    async with _wires() as wires:
        node = await wires.node("10.99.0.1/24")
        await node.start()
        yield node


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] or None, sys.argv[2] or None))
