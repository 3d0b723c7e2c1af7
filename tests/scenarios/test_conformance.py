"""Our own plugins, the example and the frozen one keep the rules that others' plugins have to keep.

They are tried in a simulated cluster of all our plugins, in which nothing outside of the process is reached.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pvcd.plugin.loading import Plugin, import_file, load
from pvcd.settings import PluginsSection
from pvcd.testing import SimulatedCluster, conformance
from pvcd_plugins.ceph.components import CLUSTER, OSD_HOST
from tests.outside import reached

ROOT = Path(__file__).parents[2]
BUILT_IN = [plugin for plugin in load(PluginsSection()) if isinstance(plugin, Plugin) and plugin.required]
OTHERS = ("examples/pvcd-notes/pvcd_notes", "tests/frozen/plugin_api_1/pvcd_example")


@pytest.mark.parametrize("plugin", BUILT_IN, ids=lambda plugin: plugin.name)
def test_a_built_in_plugin_keeps_the_rules_and_reaches_nothing_outside(plugin: Plugin) -> None:
    with reached() as outside:
        assert conformance.complaints(plugin.module) == []
    assert outside == []


@pytest.mark.parametrize("folder", OTHERS)
def test_a_check_of_a_plugin_reaches_nothing_outside(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / folder
    monkeypatch.syspath_prepend(str(path.parent))
    module = import_file(path.name, path / "__init__.py")
    with reached() as outside:
        assert conformance.complaints(module) == []
    assert outside == []


async def test_the_nodes_of_a_simulation_share_one_ceph_in_memory() -> None:
    with reached() as outside:
        async with SimulatedCluster(["hv1", "hv2"]) as cluster:
            ceph = cluster.agents["hv1"][CLUSTER]
            assert cluster.agents["hv2"][CLUSTER] is ceph
            await ceph.create_pool("vms", 8, 1, 1)
            await cluster.agents["hv2"][OSD_HOST].prepare_osd("/dev/sdc", 1.0)
            await cluster.kill_agent("hv2")
            await cluster.start_agent("hv2")
            assert await cluster.agents["hv2"][OSD_HOST].local_osds() == [1, 2]
            assert [pool.name for pool in await cluster.agents["hv2"][CLUSTER].pools()] == ["vms"]
        async with SimulatedCluster(["hv1"]) as another:
            assert await another.agents["hv1"][CLUSTER].pools() == []
    assert outside == []


def test_what_is_reached_outside_is_noticed() -> None:
    with reached() as outside:
        Path("/etc/hostname").exists()
        assert outside == []
        with open("/etc/passwd"):
            pass
        assert outside == ["open /etc/passwd"]
    subprocess.run(["true"], check=True)
    assert outside == ["open /etc/passwd"]
