"""The health of the nodes."""

from __future__ import annotations

from pvcd.cluster.lease import assign_primary
from pvcd.testing import SimulatedCluster
from pvcd_plugins.node.health import look
from pvcd_plugins.node.records import DaemonState

from .conftest import add_node


async def test_health_is_failed_without_a_primary(cluster: SimulatedCluster) -> None:
    assert (await look(cluster.api)).state == "failed"
    await add_node(cluster, "hv1", alive=False)
    found = await look(cluster.api)
    assert (found.state, found.sentence) == ("failed", "No node is primary. Dead: 'hv1'.")


async def test_health_names_dead_nodes(cluster: SimulatedCluster) -> None:
    await add_node(cluster, "hv1")
    await add_node(cluster, "hv2", alive=False)
    await add_node(cluster, "hv3", alive=False, report={"daemon_state": DaemonState.STOP})
    await assign_primary(cluster.api.store, "hv1")
    found = await look(cluster.api)
    assert (found.state, found.sentence) == ("warning", "Nodes: 3. Primary: 'hv1'. Dead: 'hv2'.")


async def test_health_is_ok_while_all_nodes_live(cluster: SimulatedCluster) -> None:
    await add_node(cluster, "hv1")
    await assign_primary(cluster.api.store, "hv1")
    found = await look(cluster.api)
    assert (found.state, found.sentence) == ("ok", "Nodes: 1. Primary: 'hv1'.")
