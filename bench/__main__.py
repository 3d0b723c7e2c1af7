"""`python -m bench`: one run, one table. Both sides of a ratio are measured in turns."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

from kazoo.client import KazooClient

from bench import networks
from bench.fill import NODES, fill, vm_xml
from bench.servers import LOGIN, Server, api, free_port, header, row, server
from pvcd.cluster.presence import Presence
from pvcd.process import ProcessIdentity
from pvcd_plugins.sandbox import network
from pvcd_plugins.sandbox.supervisor import Supervisor
from pvcd_plugins.sandbox.zookeeper import zookeeper

SIZES = (1000, 5000)


def times(count: int, *sides: Callable[[], object]) -> list[list[float]]:
    """Return the milliseconds of each call, by side; the sides take turns."""
    taken: list[list[float]] = [[] for _ in sides]
    for _ in range(count):
        for side, mine in zip(sides, taken, strict=True):
            begun = time.perf_counter()
            side()
            mine.append((time.perf_counter() - begun) * 1e3)
    return taken


def measure(folder: Path, address: str, vms: int) -> None:
    """Measure everything with a number of VMs."""
    chroot = f"/bench{vms}"
    begun = time.monotonic()
    asyncio.run(fill(address, chroot, vms))
    header(f"{vms} VMs, {NODES} nodes (filled in {time.monotonic() - begun:.1f} s)")
    begun = time.perf_counter()
    with api(folder, address, chroot) as first:
        first.wait("/api/v1")
        row("cold start", [(time.perf_counter() - begun) * 1e3])
        reads(folder, first, vms)
        writes(address, chroot, first, vms)
        with api(folder, address, chroot) as second:
            second.wait("/api/v1")
            visibility(first, second)
        print(f"\nmemory: {first.memory():.0f} MB")


def reads(folder: Path, ours: Server, vms: int) -> None:
    """Measure GETs, beside a bare handler with the same bytes."""
    paths = {
        "GET /vm": "/api/v1/vm",
        "GET /vm/{vm}": f"/api/v1/vm/vm{vms // 2}",
        "GET /vm?limit= (a name)": f"/api/v1/vm?limit=vm{vms // 2}",
        "GET /vm?limit= (an expression)": "/api/v1/vm?limit=^vm.*77$",
        "GET /node": "/api/v1/node",
        "GET /api/v1": "/api/v1",
    }
    bodies = folder / f"bodies{vms}"
    bodies.mkdir()
    for number, path in enumerate(paths.values()):
        (bodies / str(number)).write_bytes(ours.ask("GET", path))
    port = free_port()
    with server("-m", "bench.bare", str(port), str(bodies), port=port) as bare:
        bare.wait("/0")
        for number, (what, path) in enumerate(paths.items()):
            count = 60 if number == 0 else 400
            row(what, *times(count, lambda p=path: ours.ask("GET", p), lambda n=number: bare.ask("GET", f"/{n}")))


def writes(address: str, chroot: str, ours: Server, vms: int) -> None:
    """Measure POSTs, beside transactions of the same bytes through kazoo alone."""
    client = KazooClient(address + chroot, auth_data=[("digest", ":".join(LOGIN.values()))])
    client.start(10)
    try:
        client.ensure_path("/raw")
        for number in range(NODES):
            client.create(f"/presence/hv{number}", presence(f"hv{number}"), ephemeral=True)
        document = vm_xml(0).encode() + b" " * 200
        client.create("/raw/vm", document)
        states = iter(["stop", "start"] * 500)
        target = f"/api/v1/vm/vm{vms // 3}/state?state="

        def raw_set() -> None:
            transaction = client.transaction()
            transaction.set_data("/raw/vm", document)
            transaction.commit()

        def raw_create() -> None:
            name = str(uuid4())
            transaction = client.transaction()
            transaction.create(f"/raw/{name}", document)
            transaction.create(f"/raw/name-{name}", document[:80])
            transaction.commit()

        def define() -> None:
            uuid = uuid4()
            ours.ask("POST", "/api/v1/vm", xml=vm_xml(0, f"new-{uuid}", uuid), node="hv1")

        row("POST /vm/{vm}/state", *times(300, lambda: ours.ask("POST", target + next(states)), raw_set))
        row("POST /vm (define)", *times(200, define, raw_create))
    finally:
        client.stop()
        client.close()


def presence(node: str) -> bytes:
    """Return the presence record of a node's agent."""
    process = ProcessIdentity(boot="", namespace=0, pid=0, started=0)
    return Presence(node=node, session=0, process=process, since=0).encode()


def visibility(first: Server, second: Server) -> None:
    """Measure the time from the reply to a write on one server until another server shows it."""
    waited = []
    for number in range(200):
        state = "stop" if number % 2 else "start"
        first.ask("POST", "/api/v1/vm/vm1/state", state=state)
        begun = time.perf_counter()
        while json.loads(second.ask("GET", "/api/v1/vm/vm1/state"))["state"] != state:
            pass
        waited.append((time.perf_counter() - begun) * 1e3)
    row("visible on another API server", waited)


@contextlib.asynccontextmanager
async def zookeeper_server(folder: Path) -> AsyncIterator[str]:
    """Run a real ZooKeeper that writes every transaction to disk before it answers."""
    port = free_port()
    await asyncio.to_thread((folder / "log").mkdir)
    supervisor = Supervisor(folder, report=lambda line: None, changed=lambda: None)
    await supervisor.start(zookeeper(folder / "zookeeper", port, durable=True))
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await supervisor.stop()


async def main() -> None:
    """Run all benchmarks."""
    sizes = [int(size) for size in sys.argv[1:]] or SIZES
    with tempfile.TemporaryDirectory(prefix="pvcd-bench-") as name:
        async with zookeeper_server(Path(name)) as address:
            for vms in sizes:
                await asyncio.to_thread(measure, Path(name), address, vms)
            await asyncio.to_thread(networks.measure, Path(name), address)


if __name__ == "__main__":
    network.enter()
    asyncio.run(main())
