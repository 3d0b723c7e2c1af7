"""The health check of Ceph."""

from __future__ import annotations

from pvcd import Health
from pvcd.testing import SimulatedCluster
from pvcd_plugins.ceph.health import check
from tests.unit.ceph.conftest import Storage


async def test_the_health_of_ceph_is_reported(storage: Storage) -> None:
    await storage.refresh()
    found = await check(storage.context)
    assert (found.state, found.sentence) == ("ok", "Ceph reports HEALTH_OK.")


async def test_a_ceph_that_was_never_reached_is_a_warning() -> None:
    async with SimulatedCluster([], without=["vm"]) as cluster:
        assert await check(cluster.api) == Health("warning", "Ceph has not been reached yet.")


async def test_a_warning_of_ceph_is_a_warning(storage: Storage) -> None:
    await storage.ceph.set_option("noout")
    await storage.refresh()
    found = await check(storage.context)
    assert found.state == "warning"
    assert found.sentence.startswith("Ceph reports HEALTH_WARN: ")


async def test_a_ceph_that_is_away_is_a_failure(storage: Storage) -> None:
    await storage.refresh()
    storage.door.away = True
    await storage.refresh()
    assert await check(storage.context) == Health("failed", "Ceph did not answer within 30 s.")
