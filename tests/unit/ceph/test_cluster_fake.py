"""The scripting of the fake, which the real cluster lacks."""

from __future__ import annotations

import pytest

from pvcd.clock import VirtualClock
from pvcd_plugins.ceph.cluster import CephError, CephUnavailable, DeviceRefused, InUse
from pvcd_plugins.ceph.cluster.fake import FakeCluster, FakeOsdHost


async def test_draining_an_osd_takes_time() -> None:
    clock = VirtualClock()
    cluster = FakeCluster(clock, drain_seconds=60)
    await cluster.create_pool("vms", 64, 1, 1)
    first, second = cluster.add_osd("hv1"), cluster.add_osd("hv2")
    await cluster.osd_out(second)
    await clock.advance(59)
    assert await cluster.safe_to_destroy([first, second]) == frozenset()
    await clock.advance(1)
    assert await cluster.safe_to_destroy([first, second]) == {second}
    assert [osd.pgs for osd in await cluster.osds()] == [32, 0]
    with pytest.raises(InUse):
        await cluster.purge_osd(second)
    cluster.mark(second, up=False)
    await cluster.purge_osd(second)
    assert [osd.id for osd in await cluster.osds()] == [first]


async def test_an_osd_that_is_set_in_again_is_not_drained() -> None:
    clock = VirtualClock()
    cluster = FakeCluster(clock, drain_seconds=60)
    await cluster.create_pool("vms", 8, 1, 1)
    osd, _ = cluster.add_osd("hv1"), cluster.add_osd("hv2")
    await cluster.osd_out(osd)
    cluster.finish_drain(osd)
    assert await cluster.safe_to_destroy([osd]) == {osd}
    await cluster.osd_in(osd)
    assert await cluster.safe_to_destroy([osd]) == frozenset()


async def test_calls_fail_as_scripted() -> None:
    cluster = FakeCluster()
    host = FakeOsdHost(cluster, "hv1", ["/dev/sdb"], {"/dev/sda": "it is mounted on '/'"})
    cluster.failing = {"create_pool": CephError("no"), "prepare_osd": CephError("broken")}
    with pytest.raises(CephError, match="no"):
        await cluster.create_pool("vms", 8, 1, 1)
    with pytest.raises(CephError, match="broken"):
        await host.prepare_osd("/dev/sdb", 1.0)
    assert cluster.calls == ["create_pool", "prepare_osd"] and await cluster.osds() == []
    cluster.failing = {}
    with pytest.raises(DeviceRefused, match=r"Cannot use device '/dev/sda': it is mounted on '/'\."):
        await host.prepare_osd("/dev/sda", 1.0)
    cluster.stopped = True
    with pytest.raises(CephUnavailable):
        await host.prepare_osd("/dev/sdb", 1.0)
