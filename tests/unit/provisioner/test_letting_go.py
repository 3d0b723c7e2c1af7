"""A worker that starts unmaps what nobody needs, and nothing else."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pvcd import Create, Refused, Task
from pvcd.tasks import StepRecord
from pvcd.testing import SimulatedCluster
from pvcd_plugins.ceph.mapping.fake import FakeMapping
from pvcd_plugins.ceph.service import MAPPING
from pvcd_plugins.provisioner.components import unmap_orphans


def task(volume: str, **values: Any) -> Task:
    """One that has mapped a volume."""
    step = StepRecord(name="map", title="Map", journal={"mapped": [{"pool": "vms", "volume": volume}]})
    return Task(id=uuid4(), kind="provision", subject=volume, created=0, steps=(step,), **values)


async def test_what_no_task_claims_that_is_not_over_is_unmapped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mapping = FakeMapping(tmp_path, [("vms", name) for name in ("over", "needed", "unknown")])
    for _, name in sorted(mapping.volumes):
        await mapping.map("vms", name)
    async with SimulatedCluster([]) as cluster:
        context = cluster.api.derive(components={**cluster.api.components, MAPPING: mapping})
        await context.store.write(Create(task("over", state="failure")), Create(task("needed", state="running")))
        await unmap_orphans(context)
    assert [each.volume for each in await mapping.mapped()] == ["needed"]
    assert "unmapped orphaned volume vms/over of an ended task" in caplog.messages


async def test_where_nothing_can_be_mapped_it_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    class NoMapping:
        async def mapped(self) -> None:
            raise Refused("Volumes cannot be mapped here.")

    async with SimulatedCluster([]) as cluster:
        await unmap_orphans(cluster.api.derive(components={**cluster.api.components, MAPPING: NoMapping()}))
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []
