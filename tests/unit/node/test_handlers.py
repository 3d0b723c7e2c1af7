"""Flush and ready: the listeners of plugins are asked until nothing remains."""

from __future__ import annotations

from typing import Any

import pytest

from pvcd import Context, Failed, Listener, Operation
from pvcd.testing import SimulatedCluster
from pvcd_plugins.node.records import NodeReport
from pvcd_plugins.node.service import DRAIN, RESTORE
from tests.unit.conftest import plugin


class Shares:
    """A listener whose answers a test sets."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.remaining: list[str] = []
        self.error: Exception | None = None

    async def tell(self, context: Context, operation: Operation) -> list[str]:
        self.asked.append((context.node, operation.name, operation.arguments["node"]))
        if self.error:
            raise self.error
        return self.remaining


async def listen_only(context: Context, operation: Operation) -> None:
    """A listener that returns nothing, such as a log of all operations."""


@pytest.fixture
def shares() -> Shares:
    return Shares()


@pytest.fixture
def cluster(shares: Shares) -> SimulatedCluster:
    listeners = [Listener("share", (DRAIN, RESTORE), shares.tell), Listener("audit", ("*",), listen_only)]
    return SimulatedCluster(["hv1", "hv2"], [plugin(listeners=listeners)], without=["vm"], keepalive={"interval": 1})


async def set_state(cluster: SimulatedCluster, state: str) -> None:
    reply = await cluster.request("POST", "/api/v1/node/hv1/domain-state", **{"domain-state": state})
    assert reply.status == 200, reply.body
    await cluster.advance(0.1)


async def domain_state(cluster: SimulatedCluster, node: str = "hv1") -> Any:
    return (await cluster.request("GET", f"/api/v1/node/{node}/domain-state")).json["domain_state"]


def remaining(cluster: SimulatedCluster) -> tuple[str, ...]:
    report = cluster.api.store.get(NodeReport, "hv1")
    assert report is not None
    return report.remaining


async def test_a_new_node_becomes_ready(cluster: SimulatedCluster, shares: Shares) -> None:
    async with cluster:
        assert sorted(shares.asked) == [("hv1", RESTORE, "hv1"), ("hv2", RESTORE, "hv2")]
        assert await domain_state(cluster) == "ready"


async def test_a_flush_lasts_until_nothing_remains(cluster: SimulatedCluster, shares: Shares) -> None:
    async with cluster:
        shares.asked.clear()
        shares.remaining = ["web2", "web1"]
        await set_state(cluster, "flush")
        assert await domain_state(cluster) == "flush"
        assert remaining(cluster) == ("web1", "web2")
        shares.remaining = ["web2"]
        await cluster.advance(2)
        assert remaining(cluster) == ("web2",)
        shares.remaining = []
        await cluster.advance(2)
        assert (await domain_state(cluster), remaining(cluster)) == ("flushed", ())
        assert set(shares.asked) == {("hv1", DRAIN, "hv1")}
        count = len(shares.asked)
        await cluster.advance(100)
        assert len(shares.asked) == count, "a request that is done must not be asked about again"
        assert await domain_state(cluster, "hv2") == "ready"


async def test_ready_brings_things_back(cluster: SimulatedCluster, shares: Shares) -> None:
    async with cluster:
        await set_state(cluster, "flush")
        shares.asked.clear()
        await set_state(cluster, "ready")
        assert shares.asked == [("hv1", RESTORE, "hv1")]
        assert await domain_state(cluster) == "ready"


async def test_ready_ends_a_flush_that_did_not_finish(cluster: SimulatedCluster, shares: Shares) -> None:
    async with cluster:
        shares.remaining = ["web1"]
        await set_state(cluster, "flush")
        shares.remaining = []
        await set_state(cluster, "ready")
        await cluster.advance(5)
        assert (await domain_state(cluster), remaining(cluster)) == ("ready", ())
        assert shares.asked[-1] == ("hv1", RESTORE, "hv1")


async def test_a_flush_waits_for_a_listener_that_fails_and_is_tried_again(
    cluster: SimulatedCluster, shares: Shares
) -> None:
    async with cluster:
        shares.error = Failed("libvirt is away.")
        await set_state(cluster, "flush")
        await cluster.advance(5)
        assert await domain_state(cluster) == "flush"
        shares.error = None
        await cluster.advance(10)
        assert await domain_state(cluster) == "flushed"


async def test_a_flush_requested_while_the_agent_is_away_is_done_when_it_is_back(
    cluster: SimulatedCluster, shares: Shares
) -> None:
    async with cluster:
        await cluster.kill_agent("hv1")
        await set_state(cluster, "flush")
        assert await domain_state(cluster) == "flush"
        await cluster.start_agent("hv1")
        await cluster.advance(1)
        assert await domain_state(cluster) == "flushed"
