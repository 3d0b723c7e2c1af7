"""Benches for the suites of the doors to DHCP and DNS: the fakes, and dnsmasq in namespaces of the test's own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import pickle
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest
from leases import KeptLeases

from pvcd.errors import PvcdError
from pvcd.programs.runner import run
from pvcd_plugins.network.dhcp import Address, Leased, Reservation, Served
from pvcd_plugins.network.dhcp.fake import FakeDhcp
from pvcd_plugins.network.dns import Zone
from pvcd_plugins.network.dns.fake import FakeDns

HERE = Path(__file__).parent
LIMIT = 60.0
PROGRAMS = ("dnsmasq", "ip", "busybox", "dig", "setpriv")
ALL_NETWORKS = IPv4Address("10.77.0.1")
"""The address of the server of all networks."""
NAMESPACES = itertools.count()

# What udhcpc runs: says what it was told, and takes the address, from which it renews and gives back.
TOLD = """#!/bin/sh
[ "$1" = deconfig ] && ip -4 address flush dev "$interface"
[ -n "$ip" ] && [ "$1" != deconfig ] && ip -4 address replace "$ip/$mask" dev "$interface"
env | grep -v '^[A-Z]' > "$STORY.$1.new" && mv "$STORY.$1.new" "$STORY.$1"
exit 0
"""


def absent(what: str) -> NoReturn:
    """Skip a test if this machine lacks something, but fail it in CI."""
    if "CI" in os.environ:
        pytest.fail(what)
    pytest.skip(what)


async def until(holds: Callable[[], Awaitable[Any]], limit: float = LIMIT) -> Any:
    """Return the value of a condition as soon as it is true."""
    async with asyncio.timeout(limit):
        while not (found := await holds()):  # noqa: ASYNC110 - a condition of other processes
            await asyncio.sleep(0.02)
    return found


def network(vni: int, **changed: Any) -> Served:
    """A network with IPv4 and DHCP: 10.20.0.0/24 is that of VNI 200."""
    first = IPv4Address(f"10.{vni - 180}.0.0")
    pool = first + 100, first + 199
    plain: dict[str, Any] = {"ip4": IPv4Interface(f"{first + 1}/24"), "dhcp4": pool, "mtu": 1450}
    return Served(**{"vni": vni, "domain": f"net{vni}.example", **plain, **changed})


def ip6(vni: int) -> IPv6Interface:
    return IPv6Interface(f"fd00:{vni}::1/64")


def reserved(number: int, address: str, hostname: str | None = None) -> Reservation:
    return Reservation(mac(number), IPv4Address(address), hostname)


def mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


class Bench(Protocol):
    """Servers, and what hosts and tests do to them."""

    leases: KeptLeases

    async def apply(self, *served: Served) -> dict[int, str]:
        """Serve networks."""

    async def reopen(self) -> None:
        """Close the door and open it anew elsewhere, with the same leases."""

    async def take(self, vni: int, number: int, hostname: str | None = None) -> str | None:
        """Let a host take a lease; None when it gets none."""

    async def renew(self, vni: int, number: int) -> None:
        """Let it renew its lease."""

    async def give_back(self, vni: int, number: int) -> None:
        """Let it give back its lease."""

    async def ask(self, vni: int, question: str) -> str | None:
        """Return the answer of the network's name server for a name or an address."""

    async def kill(self, vni: int) -> None:
        """Kill a network's server."""

    async def open_dns(self, *upstream: Address) -> None:
        """Open the door to the server of all networks."""

    async def apply_dns(self, *zones: Zone) -> None:
        """Answer for domains."""

    async def ask_all(self, question: str) -> str | None:
        """Return the answer of the server of all networks."""


class FakeBench:
    """The fakes."""

    def __init__(self, directory: Path) -> None:
        self.leases = KeptLeases(directory / "leases")
        self.dhcp, self.dns = FakeDhcp(self.leases), FakeDns()
        self._upstream: tuple[Address, ...] = ()

    async def apply(self, *served: Served) -> dict[int, str]:
        return await self.dhcp.apply(served)

    async def reopen(self) -> None:
        await self.dhcp.close()
        self.dhcp = FakeDhcp(self.leases)

    async def take(self, vni: int, number: int, hostname: str | None = None) -> str | None:
        lease = await self.dhcp.request(vni, mac(number), hostname)
        return str(lease.address) if lease else None

    async def renew(self, vni: int, number: int) -> None:
        await self.dhcp.request(vni, mac(number))

    async def give_back(self, vni: int, number: int) -> None:
        (address,) = [each.address for each in self.dhcp.leased[vni].values() if each.mac == mac(number)]
        await self.dhcp.release(vni, address)

    async def ask(self, vni: int, question: str) -> str | None:
        names = self.dhcp.names(vni)
        if question.lower() in names:
            return str(names[question.lower()])
        return next((f"{name}." for name, address in names.items() if str(address) == question), None)

    async def kill(self, vni: int) -> None:
        """Do nothing: the fake cannot be killed."""

    async def open_dns(self, *upstream: Address) -> None:
        self._upstream = upstream

    async def apply_dns(self, *zones: Zone) -> None:
        await self.dns.apply(zones)

    async def ask_all(self, question: str) -> str | None:
        server = self.dns.asked(question)
        for vni, served in self.dhcp.served.items():
            gateways = [each.ip for each in (served.ip4, served.ip6) if each]
            if server in gateways or (server is None and set(self._upstream) & set(gateways)):
                return await self.ask(vni, question)
        return None


@dataclass
class Client:
    """A host in a network namespace, with a udhcpc that keeps running."""

    namespace: str
    process: Process
    story: Path

    def told(self, what: str) -> dict[str, str]:
        """Return the options of udhcpc's event `bound`, or of another event."""
        lines = self.story.with_suffix(f".{what}").read_text().splitlines()
        return dict(line.partition("=")[::2] for line in lines)


class RealBench:
    """dnsmasq in a namespace with the bridges; each host has a namespace with a cable to one."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.leases = KeptLeases(scratch / "kept")
        self.namespace = ""
        self.namespaces: list[str] = []
        self.log = scratch / "log"
        self._clients: dict[tuple[int, int], Client] = {}
        self._hosts: dict[tuple[int, int], str] = {}
        self._directories = itertools.count()
        self._process: Process | None = None
        self._told = scratch / "told"

    async def begin(self) -> None:
        """Make the namespace with two bridges and start the process in it."""
        self._told.write_text(TOLD)
        self._told.chmod(0o755)
        self.namespace = await self.add_namespace()
        await self.ip("-n", self.namespace, "address", "add", f"{ALL_NETWORKS}/32", "dev", "lo")
        for vni in (200, 201):
            await self.add_bridge(vni)
        await self.start()

    async def add_namespace(self) -> str:
        name = f"pvct{os.getpid()}-{next(NAMESPACES)}"
        await self.ip("netns", "add", name)
        self.namespaces.append(name)
        await self.ip("-n", name, "link", "set", "lo", "up")
        for setting in ("accept_dad=0", "router_solicitation_delay=0"):
            await self.inside(name, "sysctl", "-qw", f"net.ipv6.conf.default.{setting}")
        return name

    async def add_bridge(self, vni: int) -> None:
        gateways = [f"10.{vni - 180}.0.1/24", str(ip6(vni))]
        lines = [f"link add vmbr{vni} type bridge", f"link set vmbr{vni} up"]
        lines += [f"address add {each} dev vmbr{vni}" for each in gateways]
        await self.batch(self.namespace, *lines)

    async def ip(self, *words: str) -> str:
        return (await run(("ip", *words), timeout=LIMIT)).stdout.decode()

    async def batch(self, namespace: str, *lines: str) -> None:
        await run(("ip", "-n", namespace, "-batch", "-"), timeout=LIMIT, input="\n".join(lines).encode() + b"\n")

    async def inside(self, namespace: str, *argv: str, check: bool = True) -> str:
        """Return the output of a program in a namespace."""
        return (await run(("ip", "netns", "exec", namespace, *argv), timeout=LIMIT, check=check)).stdout.decode()

    async def start(self) -> None:
        """Start the process with the doors."""
        argv = ("ip", "netns", "exec", self.namespace, sys.executable, str(HERE / "dhcp_process.py"))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *argv, str(self.leases.path), stdin=PIPE, stdout=PIPE, stderr=log, limit=1 << 24
            )
        await self.tell("open_dhcp", self.directory())

    def directory(self) -> Path:
        return self.scratch / f"door{next(self._directories)}"

    async def tell(self, verb: str, *arguments: Any) -> Any:
        """Let the process do something; raises what it raises."""
        process = self._process
        assert process and process.stdin and process.stdout
        process.stdin.write(base64.b64encode(pickle.dumps((verb, arguments))) + b"\n")
        async with asyncio.timeout(LIMIT):
            line = await process.stdout.readline()
        assert line, self.log.read_text()
        answer = pickle.loads(base64.b64decode(line))
        if isinstance(answer, PvcdError):
            raise answer
        return answer

    async def apply(self, *served: Served) -> dict[int, str]:
        answer: dict[int, str] = await self.tell("apply_dhcp", *served)
        return answer

    async def reopen(self) -> None:
        await self.stop()
        await self.start()

    async def stop(self, how: signal.Signals | None = None) -> None:
        """End the process, with its doors closed or killed."""
        process = self._process
        assert process and process.stdin
        if how is None:
            await self.tell("close")
        else:
            process.send_signal(how)
        process.stdin.close()
        async with asyncio.timeout(LIMIT):
            await process.wait()
        self._process = None

    async def host(self, vni: int, number: int) -> str:
        """The namespace of a host that has a cable to the bridge of a network."""
        if (vni, number) not in self._hosts:
            name = self._hosts[vni, number] = await self.add_namespace()
            peer = f"c{vni}-{number}"
            cable = f"link add {peer} type veth peer name eth0 address {mac(number)} netns {name}"
            await self.batch(self.namespace, cable, f"link set {peer} master vmbr{vni} up")
            await self.ip("-n", name, "link", "set", "eth0", "up")
        return self._hosts[vni, number]

    async def take(self, vni: int, number: int, hostname: str | None = None) -> str | None:
        client = await self.client(vni, number, hostname)
        return client.told("bound")["ip"] if client else None

    async def client(self, vni: int, number: int, hostname: str | None = None) -> Client | None:
        """A host with a lease; None when it gets none."""
        await self.end_client(vni, number)
        namespace = await self.host(vni, number)
        story = Path(tempfile.mkdtemp(dir=self.scratch)) / "story"
        argv = ["busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-t", "3", "-T", "1", "-s", str(self._told)]
        asked = [word for each in ("mtu", "search", "ntpsrv", "staticroutes", "domain") for word in ("-O", each)]
        name = ["-x", f"hostname:{hostname}"] if hostname else []
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", namespace, *argv, *asked, *name),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
            env=os.environ | {"STORY": str(story)},
        )
        client = self._clients[vni, number] = Client(namespace, process, story)
        bound = story.with_suffix(".bound")

        async def decided() -> bool:
            return bound.exists() or process.returncode is not None

        await until(decided)
        return client if bound.exists() else None

    async def renew(self, vni: int, number: int) -> None:
        await self._signal(vni, number, signal.SIGUSR1, "renew")

    async def give_back(self, vni: int, number: int) -> None:
        self._clients[vni, number].story.with_suffix(".deconfig").unlink(missing_ok=True)
        await self._signal(vni, number, signal.SIGUSR2, "deconfig")

    async def _signal(self, vni: int, number: int, sent: signal.Signals, told: str) -> None:
        client = self._clients[vni, number]
        client.process.send_signal(sent)

        async def has_told() -> bool:
            return client.story.with_suffix(f".{told}").exists()

        await until(has_told)

    async def end_client(self, vni: int, number: int) -> None:
        client = self._clients.pop((vni, number), None)
        if client is not None:
            if client.process.returncode is None:
                client.process.kill()
            await client.process.wait()

    async def ask(self, vni: int, question: str) -> str | None:
        return await self.dig(f"10.{vni - 180}.0.1", question)

    async def ask_all(self, question: str) -> str | None:
        return await self.dig(str(ALL_NETWORKS), question)

    async def dig(self, server: str, question: str, *more: str) -> str | None:
        """The answer to a question after a name or an address."""
        try:
            words = ["-x", str(ip_address(question))]
        except ValueError:
            words = [question]
        asked = ("dig", "+short", "+tries=1", "+time=2", f"@{server}", *words, *more)
        answer = (await self.inside(self.namespace, *asked, check=False)).strip()
        return None if not answer or answer.startswith(";") else answer

    async def pids(self) -> dict[int, int | None]:
        """The processes that serve."""
        answer: dict[int, int | None] = await self.tell("pids")
        return answer

    async def kill(self, vni: int) -> None:
        pid = (await self.pids())[vni]
        assert pid
        os.kill(pid, signal.SIGKILL)

        async def is_back() -> bool:
            return (await self.pids())[vni] not in (pid, None)

        await until(is_back)

    async def dhcp6(self, vni: int, number: int, what: str = "lease") -> dict[str, Any]:
        """Return the DHCPv6 options that a host gets."""
        namespace = await self.host(vni, number)
        told = await self.inside(namespace, sys.executable, str(HERE / "dhcp6_client.py"), mac(number), what)
        answer: dict[str, Any] = json.loads(told)
        return answer

    async def open_dns(self, *upstream: Address) -> None:
        await self.tell("open_dns", self.directory(), [ALL_NETWORKS], list(upstream))

    async def apply_dns(self, *zones: Zone) -> None:
        await self.tell("apply_dns", *zones)

    async def end(self) -> None:
        """Remove everything."""
        for key in list(self._clients):
            await self.end_client(*key)
        if self._process is not None:
            await self.stop()
        for name in self.namespaces:
            await run(("ip", "netns", "del", name), timeout=LIMIT, check=False)


@pytest.fixture(params=["fake", "real"], name="bench")
async def bench_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "fake":
        yield FakeBench(tmp_path)
    else:
        async with _real() as real:
            yield real


@pytest.fixture(name="real")
async def real_fixture() -> AsyncIterator[RealBench]:
    async with _real() as real:
        yield real


@contextlib.asynccontextmanager
async def _real() -> AsyncIterator[RealBench]:
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        absent(f"not installed here: {', '.join(missing)}")
    if os.geteuid() != 0:
        absent("only root may make network namespaces")
    # Not below pytest's own directory, which none but its owner may enter.
    with tempfile.TemporaryDirectory(prefix="pvcd-dhcp-") as scratch:
        os.chmod(scratch, 0o755)
        bench = RealBench(Path(scratch))
        try:
            await bench.begin()
            yield bench
        finally:
            await bench.end()


def runs(pid: int | None) -> bool:
    """Return whether a process has not ended; one that is not reaped has no arguments."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def status(pid: int | None) -> dict[str, str]:
    """Return what the kernel shows of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}


def expiry(bench: Bench, vni: int, address: str) -> float:
    """Return the stored end of a lease, or 0 if there is none."""
    lease: Leased | None = bench.leases.all().get((vni, ip_address(address)))
    return lease.expires if lease else 0.0
