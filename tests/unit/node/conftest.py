"""A cluster of nodes that exist in the store only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pvcd import Create, Presence
from pvcd.process import ProcessIdentity
from pvcd.testing import SimulatedCluster
from pvcd_plugins.node.records import DaemonState, Node, NodeReport


async def add_node(
    cluster: SimulatedCluster,
    name: str,
    *,
    alive: bool = True,
    node: dict[str, Any] | None = None,
    report: dict[str, Any] | None = None,
) -> None:
    """A node as its agent leaves it in the store: running and ready by default."""
    said = {"daemon_state": DaemonState.RUN, "settled_generation": 0} | (report or {})
    await cluster.api.store.write(Create(Node(name=name, **({"coordinator": True} | (node or {})))))
    await cluster.api.store.write(Create(NodeReport(name=name, **said)))
    if alive:
        await cluster.api.store.write(
            Create(Presence(node=name, session=1, process=ProcessIdentity.current(), since=0))
        )


@pytest.fixture
async def cluster() -> AsyncIterator[SimulatedCluster]:
    """An API without any agent."""
    async with SimulatedCluster([], without=["vm"]) as cluster:
        yield cluster
