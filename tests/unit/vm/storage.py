"""A cluster whose Ceph is a table, for the VM plugin's use of the storage plugin."""

from __future__ import annotations

import asyncio
import base64
from contextlib import AbstractAsyncContextManager
from typing import Any

from pvcd import Component, Context, Failed, Handlers, NotFound, Role
from pvcd.testing import SimulatedCluster, opened
from pvcd_plugins.ceph import records, settings
from pvcd_plugins.ceph.cluster import HasSnapshots, InUse, Lock, Monitors
from pvcd_plugins.ceph.components import CLUSTER
from pvcd_plugins.vm.components import HYPERVISOR, listening
from pvcd_plugins.vm.hypervisor import Hypervisor
from pvcd_plugins.vm.hypervisor.fake import FakeHypervisor
from tests.unit.conftest import plugin
from tests.unit.vm.conftest import domain_xml

KEY = b"the secret key of guests"
MONITORS = Monitors(fsid="153dd2f4-ab36-4bc4-87a2-fcd73c1ac7ed", addresses=(("10.0.0.1", 3300), ("fd00::2", 3300)))
LOCK = Lock(id="auto 1", locker="client.4123", address="10.0.0.9:0/1")


class Ceph:
    """The volumes with their locks, and the failures that a test sets."""

    def __init__(self) -> None:
        self.volumes: dict[tuple[str, str], list[Lock]] = {}
        self.failure: Failed | None = None
        self.in_use_until = 0.0
        self.asked = 0
        self.answers = asyncio.Event()
        """While it is cleared, questions for the monitors wait."""
        self.answers.set()
        self.removed: list[str] = []
        self.with_snapshots: set[tuple[str, str]] = set()

    async def auth_key(self, user: str) -> str:
        assert user == "libvirt"
        return base64.b64encode(KEY).decode()

    async def monitors(self) -> Monitors:
        self.asked += 1
        await self.answers.wait()
        if self.failure:
            raise self.failure
        return MONITORS

    def plugin(self) -> Any:
        """Return a plugin in place of the storage plugin."""
        primary = Handlers(scope="primary")

        @primary.node_command("ceph-volume-check-removal")
        async def check(context: Context, pool: str, volume: str) -> None:
            self.find(pool, volume)
            if (pool, volume) in self.with_snapshots:
                raise HasSnapshots(f"{pool}/{volume}")
            if context.clock.time() < self.in_use_until:
                raise InUse("volume", f"remove volume '{pool}/{volume}'", "a client has it open")

        @primary.node_command("ceph-volume-remove")
        async def remove(context: Context, pool: str, volume: str) -> None:
            await check(context, pool, volume)
            del self.volumes[pool, volume]
            self.removed.append(f"{pool}/{volume}")

        @primary.node_command("ceph-volume-locks")
        async def locks(context: Context, pool: str, volume: str) -> list[Lock]:
            return self.find(pool, volume)

        @primary.node_command("ceph-volume-unlock")
        async def unlock(context: Context, pool: str, volume: str) -> list[Lock]:
            found = self.find(pool, volume)
            self.volumes[pool, volume] = []
            return found

        return plugin(
            "ceph-stub",
            handlers=[primary],
            settings=[settings.SECTION],
            records=[records.Volume],
            components=[Component(CLUSTER, lambda _: opened(self), roles=(Role.NODE,), in_memory=True)],
        )

    def find(self, pool: str, volume: str) -> list[Lock]:
        if self.failure:
            raise self.failure
        if (pool, volume) not in self.volumes:
            raise NotFound("volume", f"{pool}/{volume}")
        return self.volumes[pool, volume]


class StorageCluster:
    """Nodes with fake hypervisors, and a Ceph that is a table."""

    def __init__(self, *nodes: str) -> None:
        self.ceph = Ceph()
        self.hypervisors: dict[str, FakeHypervisor] = {}
        self.simulated = SimulatedCluster(
            nodes or ("hv1",),
            plugins=[self.ceph.plugin()],
            replace={HYPERVISOR: self.open_hypervisor},
            without=["ceph"],
            keepalive={"interval": 1},
        )

    def open_hypervisor(self, context: Context) -> AbstractAsyncContextManager[Hypervisor]:
        return listening(context, self.hypervisors.setdefault(context.node, FakeHypervisor(context.clock)))

    async def ask(self, method: str, path: str, status: int = 200, **values: Any) -> Any:
        reply = await self.simulated.request(method, f"/api/v1{path}", **values)
        assert reply.status == status, reply.body.decode()
        return reply.json

    async def define(self, name: str, *volumes: str, status: int = 200, read_only: bool = False, **more: Any) -> Any:
        xml = with_disks(name, *volumes, read_only=read_only)
        return await self.ask("POST", "/vm", status, xml=xml, **more)

    async def start(self, name: str, status: int = 200) -> Any:
        reply = await self.ask("POST", f"/vm/{name}/state", status, state="start")
        await self.simulated.advance(1)
        return reply

    async def stop(self, name: str) -> None:
        await self.ask("POST", f"/vm/{name}/state", state="stop")
        await self.simulated.advance(1)

    async def while_time_passes(self, method: str, path: str, status: int = 200, **values: Any) -> Any:
        """Return the reply to a request that takes time."""
        asking = asyncio.ensure_future(self.simulated.request(method, f"/api/v1{path}", **values))
        for _ in range(2000):
            if asking.done():
                break
            await self.simulated.advance(0.1)
        reply = await asking
        assert reply.status == status, reply.body.decode()
        return reply.json


def with_disks(name: str, *volumes: str, read_only: bool = False, source: str = "") -> str:
    """A definition with these RBD disks."""
    disks = "".join(
        f"<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        f"<source protocol='rbd' name='{volume}'>{source}</source><target dev='vd{letter}' bus='virtio'/>"
        f"{'<readonly/>' if read_only else ''}</disk>"
        for letter, volume in zip("abcdefgh", volumes, strict=False)
    )
    return domain_xml(name).replace("</devices>", f"{disks}</devices>")
