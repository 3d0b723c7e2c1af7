"""Benches for the suite of the door to a node's packet filter: the fake, and the kernel's in a namespace of our own.

As a program it is a node: it runs the real door in the namespace where it was started, for the test that controls it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import pytest

from pvcd.programs.runner import run
from pvcd_plugins.network.firewall import Filter, Firewall
from pvcd_plugins.network.firewall.fake import FakeFirewall
from pvcd_plugins.network.firewall.nft import NftFirewall, generation
from tests.contract.remote import Remote, serve

LIMIT = 60.0
SILENCE = 0.3
"""Seconds after which what did not arrive is said not to pass."""
PORTS = (22, 53, 80, 443, 8080)
"""The TCP port at which guests and the node answer."""
UNKNOWN = "nonsense"
"""No node can load a rule with this word."""
METADATA = "169.254.169.254"
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


class Bench(Protocol):
    """A node with the networks 200 and 201, a guest in each, and a host at a link (None) that is not ours."""

    firewall: Firewall

    async def passes(self, source: int | None, target: int | None, port: int) -> bool:
        """Return whether one guest reaches a port of another with TCP."""

    async def admits(self, source: int | None, port: int, address: str | None = None) -> bool:
        """Return whether a guest reaches a port of the node with TCP, at its gateway's address or another."""

    async def hears(self, source: int | None, port: int) -> bool:
        """Return whether the node gets a datagram from a guest."""

    async def changes(self) -> int:
        """Return how often the packet filter has been changed."""

    async def tamper(self) -> None:
        """Remove our table as another program would."""


class FakeBench:
    """The fake, which is scripted."""

    def __init__(self) -> None:
        self.fake = FakeFirewall()
        self.fake.unknown = {UNKNOWN}
        self.firewall: Firewall = self.fake

    async def passes(self, source: int | None, target: int | None, port: int) -> bool:
        return self.fake.passes(source, target, port)

    async def admits(self, source: int | None, port: int, address: str | None = None) -> bool:
        return self.fake.admits(source, port, address=address)

    async def hears(self, source: int | None, port: int) -> bool:
        return self.fake.admits(source, port, "udp")

    async def changes(self) -> int:
        return self.fake.loads

    async def tamper(self) -> None:
        self.fake.tamper()


class RemoteFirewall(Remote):
    """The real door, in a process that stands in another namespace."""

    async def check(self, rule: str) -> str:
        return str(await self.call("check", rule))

    async def apply(self, filters: Collection[Filter]) -> None:
        await self.call("apply", tuple(filters))


async def main() -> None:
    """Be a node, for the test that controls it."""
    firewall = NftFirewall()

    async def call(name: str, *values: Any) -> Any:
        return generation() if name == "generation" else await getattr(firewall, name)(*values)

    await serve(call)


@dataclass(frozen=True)
class Host:
    """A network namespace; `number` is in its addresses."""

    namespace: str
    number: int

    @property
    def address(self) -> str:
        return f"10.{self.number}.0.50"

    @property
    def address6(self) -> str:
        return f"fd00:{self.number}::50"

    @property
    def gateway(self) -> str:
        return f"10.{self.number}.0.1"

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """A socket that belongs to this namespace."""
        made: list[socket.socket] = []

        def make() -> None:
            # Only this thread goes there, and it ends at once; a socket stays where it was made.
            with open(f"/run/netns/{self.namespace}") as namespace:
                assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET) == 0
            made.append(socket.socket(family, kind))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        made[0].setblocking(False)
        return made[0]

    def listener(self, port: int) -> socket.socket:
        """Return a socket that accepts all connections and never answers."""
        listener = self.socket(socket.AF_INET6, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::", port))
        listener.listen(64)
        return listener

    def receiver(self, port: int) -> socket.socket:
        """One for datagrams."""
        receiver = self.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
        receiver.bind(("0.0.0.0", port))
        return receiver

    async def connect(self, address: str, port: int) -> socket.socket | None:
        """A connection to an address, or None if there is none."""
        made = self.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            async with asyncio.timeout(SILENCE):
                await asyncio.get_running_loop().sock_connect(made, (address, port))
        except TimeoutError:
            # It may have been too busy here to notice.
            with contextlib.suppress(OSError):
                made.getpeername()
                return made
        except OSError:
            pass
        else:
            return made
        made.close()
        return None

    async def reaches(self, address: str, port: int) -> bool:
        """Return whether there is a connection to an address."""
        made = await self.connect(address, port)
        if made:
            made.close()
        return made is not None


class NftBench:
    """The kernel, with two bridges and a link that is not ours in a namespace that routes between them."""

    def __init__(self) -> None:
        name = f"pvcfw-{os.getpid()}-{next(_numbers)}"
        self.node = Host(f"{name}-node", 0)
        self.guests = {None: Host(f"{name}-out", 10), 200: Host(f"{name}-200", 20), 201: Host(f"{name}-201", 21)}
        self._made: list[Host] = []
        self._sockets: list[socket.socket] = []
        self.firewall: RemoteFirewall

    async def start(self) -> None:
        for host in (self.node, *self.guests.values()):
            await run(("ip", "netns", "add", host.namespace), timeout=LIMIT)
            self._made.append(host)
            await self._batch(host, ["link set lo up", *(self._guest(host) if host is not self.node else [])])
        await self._batch(self.node, [line for vni in self.guests for line in self._port(vni)])
        await self._batch(self.node, [f"address add {METADATA}/32 dev lo"])
        for path in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            await self.inside("sysctl", "-qw", f"net.{path}=1")
        for host in (self.node, *self.guests.values()):
            self._sockets += [host.listener(port) for port in PORTS]
        self.firewall = await RemoteFirewall.start(self.node.namespace, "tests.contract.firewalls")
        await asyncio.gather(*(self._know(*each) for each in itertools.permutations(self.guests.values(), 2)))

    async def _know(self, source: Host, target: Host) -> None:
        """Let hosts find each other, before anything counts on it."""
        async with asyncio.timeout(LIMIT):
            for address in (target.address, target.address6):
                while not await source.reaches(address, PORTS[0]):
                    pass

    def _guest(self, host: Host) -> list[str]:
        return [
            f"link add eth0 type veth peer name port{host.number} netns {self.node.namespace}",
            "link set eth0 up",
            f"address add {host.address}/24 dev eth0",
            f"address add {host.address6}/64 dev eth0 nodad",
            f"route add default via {host.gateway}",
            f"route add default via fd00:{host.number}::1",
        ]

    def _port(self, vni: int | None) -> list[str]:
        number = self.guests[vni].number
        device, lines = f"port{number}", []
        if vni is not None:
            device = f"vmbr{vni}"
            lines = [f"link add {device} type bridge", f"link set port{number} master {device}"]
        return [
            *lines,
            *(f"link set {each} up" for each in sorted({device, f"port{number}"})),
            f"address add {self.guests[vni].gateway}/24 dev {device}",
            f"address add fd00:{number}::1/64 dev {device} nodad",
        ]

    async def _batch(self, host: Host, lines: list[str]) -> None:
        text = "\n".join(lines) + "\n"
        await run(("ip", "-n", host.namespace, "-batch", "-"), input=text.encode(), timeout=LIMIT)

    async def inside(self, *argv: str, text: str | None = None) -> str:
        """Return the output of another program on the node."""
        command = ("ip", "netns", "exec", self.node.namespace, *argv)
        result = await run(command, input=None if text is None else text.encode(), timeout=LIMIT)
        return result.stdout.decode()

    async def passes(self, source: int | None, target: int | None, port: int) -> bool:
        return await self.guests[source].reaches(self.guests[target].address, port)

    async def admits(self, source: int | None, port: int, address: str | None = None) -> bool:
        return await self.guests[source].reaches(address or self.guests[source].gateway, port)

    async def hears(self, source: int | None, port: int) -> bool:
        loop, guest = asyncio.get_running_loop(), self.guests[source]
        with self.node.receiver(port) as receiver, guest.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"?", (guest.gateway, port))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SILENCE):
                    return bool(await loop.sock_recv(receiver, 1))
        return False

    async def changes(self) -> int:
        return int(await self.firewall.call("generation"))

    async def tamper(self) -> None:
        await self.inside("nft", "delete", "table", "inet", "pvc")

    async def end(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for host in self._made:
                stack.push_async_callback(run, ("ip", "netns", "del", host.namespace), timeout=LIMIT)
            if hasattr(self, "firewall"):
                stack.push_async_callback(self.firewall.end)
            for each in self._sockets:
                each.close()


def absent(what: str) -> NoReturn:
    """Skip a test if this machine lacks something, but fail it in CI."""
    if "CI" in os.environ:
        pytest.fail(what)
    pytest.skip(what)


@contextlib.asynccontextmanager
async def _real() -> AsyncIterator[NftBench]:
    if os.geteuid() != 0:
        absent("only root may make network namespaces")
    missing = [name for name in ("ip", "nft", "sysctl") if not shutil.which(name)]
    if missing:
        absent(f"not installed here: {', '.join(missing)}")
    bench = NftBench()
    try:
        await bench.start()
        yield bench
    finally:
        await bench.end()


@pytest.fixture(params=["fake", "nft"], name="bench")
async def bench_fixture(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "fake":
        yield FakeBench()
        return
    async with _real() as bench:
        yield bench


@pytest.fixture(name="real")
async def real_fixture() -> AsyncIterator[NftBench]:
    async with _real() as bench:
        yield bench


if __name__ == "__main__":
    asyncio.run(main())
