"""The provisioner's endpoints over a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pvcd import Context
from pvcd.testing import Reply, SimulatedCluster

SCRIPT = "def install(**kwargs):\n    print(kwargs['vm_name'])\n"
PROFILE = {
    "system_template": "small",
    "network_template": "one-nic",
    "storage_template": "root",
    "userdata_template": "base",
    "script": "deb",
}
"""The things that `Provisioner.fill` creates, as a profile names them."""


class Provisioner:
    """The API without any agent."""

    def __init__(self) -> None:
        self.cluster = SimulatedCluster([], without=["vm"])

    @property
    def context(self) -> Context:
        return self.cluster.api

    async def ask(self, method: str, path: str, /, **values: Any) -> Reply:
        """Send a request below /provisioner."""
        return await self.cluster.request(method, f"/api/v1/provisioner{path}", **values)

    async def get(self, path: str, /, **values: Any) -> Any:
        reply = await self.ask("GET", path, **values)
        assert reply.status == 200, reply.body
        return reply.json

    async def do(self, method: str, path: str, /, **values: Any) -> Any:
        """Make a change that succeeds."""
        reply = await self.ask(method, path, **values)
        assert reply.status == 200, reply.body
        return reply.json

    async def refused(self, method: str, path: str, /, **values: Any) -> tuple[str, str]:
        """Return the code and the sentence of a failure."""
        reply = await self.ask(method, path, **values)
        assert reply.status == 510, reply.body
        return reply.json["code"], reply.json["message"]

    async def fill(self) -> None:
        """Create everything that a profile needs."""
        await self.do("POST", "/template/system", name="small", vcpus=1, vram=512)
        await self.do("POST", "/template/network", name="one-nic")
        await self.do("POST", "/template/storage", name="root")
        await self.do("POST", "/template/userdata", name="base", data="#cloud-config\n")
        await self.do("POST", "/script", name="deb", data=SCRIPT)

    async def everything(self) -> Any:
        """Return all templates, scripts and profiles."""
        return await self.get("/template"), await self.get("/script"), await self.get("/profile")


@pytest.fixture
async def provisioner() -> AsyncIterator[Provisioner]:
    made = Provisioner()
    async with made.cluster:
        yield made
