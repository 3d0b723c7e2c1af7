"""The network endpoints over a store in memory, with a stub for the packet filter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from ipaddress import ip_address
from typing import Any

import pytest

from pvcd import Context, Create, Guard, Invalid, Listener, Record
from pvcd.clock import settle
from pvcd.testing import Reply, SimulatedCluster, opened
from pvcd_plugins.network.components import FIREWALL
from pvcd_plugins.network.firewall import Filter
from pvcd_plugins.network.records import Lease
from tests.unit.conftest import plugin

MANAGED = {
    "vni": "200",
    "description": "app",
    "nettype": "managed",
    "ip4_network": "10.20.0.0/24",
    "ip4_gateway": "10.20.0.1",
    "dhcp4": "",
    "dhcp4_start": "10.20.0.100",
    "dhcp4_end": "10.20.0.199",
}
"""The network of most tests."""


class StubFirewall:
    """Accepts every rule that ends with a verdict."""

    def __init__(self) -> None:
        self.checked: list[str] = []

    async def check(self, rule: str) -> str:
        self.checked.append(rule)
        if not rule.endswith(("accept", "drop")):
            raise Invalid("The rule has no verdict.")
        return " ".join(rule.split())

    async def apply(self, filters: Collection[Filter]) -> None:
        raise AssertionError("the API applies nothing")


class Networks:
    """The API without any agent."""

    def __init__(self, *, guards: Iterable[Guard] = (), listeners: Iterable[Listener] = ()) -> None:
        self.firewall = StubFirewall()
        self.cluster = SimulatedCluster(
            [],
            [plugin(guards=guards, listeners=listeners)],
            without=["vm"],
            replace={FIREWALL: lambda context: opened(self.firewall)},
        )

    @property
    def context(self) -> Context:
        return self.cluster.api

    async def ask(self, method: str, path: str, /, **values: Any) -> Reply:
        """Send a request below /network."""
        return await self.cluster.request(method, f"/api/v1/network{path}", **values)

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

    async def create(self, vni: Any = 200, description: Any = "app", **values: Any) -> Any:
        """Create a managed network, by default without addresses."""
        return await self.do("POST", "", **{"vni": vni, "description": description, "nettype": "managed", **values})

    async def create_app(self) -> Any:
        return await self.do("POST", "", **MANAGED)

    async def lease(
        self, address: str, mac: str | None, *, vni: int = 200, expires: float = 1e10, **more: Any
    ) -> Lease:
        """Store a lease as the primary does."""
        lease = Lease(vni=vni, address=ip_address(address), mac=mac, expires=expires, **more)
        await self.context.store.write(Create(lease))
        return lease

    def count(self, kind: type[Record]) -> int:
        return len(self.context.store.all(kind))

    async def settle_until(self, condition: Callable[[], bool]) -> None:
        for _ in range(100):
            if condition():
                return
            await settle()
        raise AssertionError("it did not come true")


@pytest.fixture
async def networks() -> AsyncIterator[Networks]:
    made = Networks()
    async with made.cluster:
        yield made
