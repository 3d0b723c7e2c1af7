"""A package of somebody else, and a folder with the same, add to pvcd without any change of ours."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pvcd.process import run
from pvcd.registry import load
from pvcd.settings import PluginsSection
from pvcd.testing import SimulatedCluster
from pvcd_plugins.vm.components import HYPERVISOR
from pvcd_plugins.vm.hypervisor.fake import FakeHypervisor

PACKAGE = Path(__file__).parents[1] / "third_party"
DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>00000000-0000-4000-8000-00000000000{number}</uuid>
<memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"""


async def pip(*arguments: str) -> None:
    await run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments], timeout=100)


async def pvcd_plugins(config: Path, **environment: str) -> str:
    result = await run(
        [sys.executable, "-m", "pvcd", "plugins"],
        timeout=60,
        environment={"PVC_CONFIG_FILE": str(config), **environment},
    )
    return result.stdout.decode()


def listing(origin: str, name: str) -> str:
    """What `pvcd plugins` should say of the example."""
    module = "pvcd_example" if name == "example" else f"pvcd_site_{name}"
    return (
        f"{name} ({origin})\n"
        f"  records: /freezes/{{node}}, /freezes/{{node}}/report\n"
        f"  routes: DELETE /api/v1/freeze/{{node}}, GET /api/v1/freeze, POST /api/v1/freeze/{{node}}\n"
        f"  handlers: {module}.handlers.follow(Freeze)\n"
        f"  node_selectors: thawed\n"
        f"  guards: frozen-nodes\n"
    )


async def test_an_installed_package_is_found(tmp_path: Path) -> None:
    source, wheels, target = tmp_path / "source", tmp_path / "wheels", tmp_path / "target"
    await asyncio.to_thread(shutil.copytree, PACKAGE, source)
    await pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source))
    (wheel,) = wheels.iterdir()
    await pip("install", "--no-deps", "--target", str(target), str(wheel))
    config = tmp_path / "pvc-api.yaml"
    config.write_text("pvc: {}")
    path = os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH")]))
    text = await pvcd_plugins(config, PYTHONPATH=path)
    assert listing("package pvcd_example", "example") in text
    assert "\nnode (package pvcd_plugins.node)\n" in text
    config.write_text("pvc: {plugins: {disabled: [example]}}")
    assert "example" not in await pvcd_plugins(config, PYTHONPATH=path)


async def test_a_folder_is_found(tmp_path: Path) -> None:
    config = tmp_path / "pvc-api.yaml"
    config.write_text(f"pvc: {{plugins: {{directories: ['{PACKAGE}']}}}}")
    text = await pvcd_plugins(config)
    assert listing(str(PACKAGE / "pvcd_example"), "pvcd_example") in text


@pytest.fixture(params=["package", "folder"])
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example as a plugin, imported in either way."""
    before = set(sys.modules)
    if request.param == "package":
        monkeypatch.syspath_prepend(str(PACKAGE))
        yield importlib.import_module("pvcd_example")
    else:
        loaded = load(PluginsSection(directories=(PACKAGE,)))
        yield next(plugin.module for plugin in loaded if plugin.name == "pvcd_example")
    for name in set(sys.modules) - before:
        if "pvcd_example" in name:
            del sys.modules[name]


@contextlib.asynccontextmanager
async def fake_hypervisor(context: Any) -> AsyncIterator[FakeHypervisor]:
    hypervisor = FakeHypervisor(context.clock)
    await hypervisor.open()
    try:
        yield hypervisor
    finally:
        await hypervisor.close()


@pytest.fixture
async def cluster(module: ModuleType) -> AsyncIterator[SimulatedCluster]:
    replace = {HYPERVISOR: fake_hypervisor}
    async with SimulatedCluster(["hv1", "hv2"], [module], replace, keepalive={"interval": 1}) as cluster:
        await cluster.advance(2)
        yield cluster


async def ask(cluster: SimulatedCluster, method: str, path: str, status: int = 200, /, **values: str) -> Any:
    reply = await cluster.request(method, f"/api/v1/{path}", **values)
    assert reply.status == status, reply.body
    return reply.json


async def test_its_routes_and_its_record_work(cluster: SimulatedCluster) -> None:
    assert await ask(cluster, "GET", "freeze") == []
    await ask(cluster, "POST", "freeze/hv2", reason="disks")
    await ask(cluster, "POST", "freeze/hv1", reason="fans")
    frozen = await ask(cluster, "GET", "freeze")
    assert [(each["node"], each["reason"]) for each in frozen] == [("hv1", "fans"), ("hv2", "disks")]
    await ask(cluster, "DELETE", "freeze/hv1")
    assert [each["node"] for each in await ask(cluster, "GET", "freeze")] == ["hv2"]


async def test_its_refusals_are_those_of_pvcd(cluster: SimulatedCluster) -> None:
    refused = await ask(cluster, "POST", "freeze/hv9", 510, reason="disks")
    assert refused == {"message": "There is no node 'hv9'.", "code": "node-not-found"}
    assert (await ask(cluster, "DELETE", "freeze/hv1", 510))["code"] == "frozen-node-not-found"
    assert "reason" in (await ask(cluster, "POST", "freeze/hv1", 510))["message"]
    assert "did you mean 'reason'?" in (await ask(cluster, "POST", "freeze/hv1", 510, reasn="x"))["message"]


async def test_its_handler_acts_on_the_node(cluster: SimulatedCluster) -> None:
    await cluster.stop_agent("hv2")
    for node in ("hv1", "hv2"):
        await ask(cluster, "POST", f"freeze/{node}", reason="disks")
    await cluster.advance(1)
    assert [each["known"] for each in await ask(cluster, "GET", "freeze")] == [True, False]
    await cluster.start_agent("hv2")
    assert [each["known"] for each in await ask(cluster, "GET", "freeze")] == [True, True]


async def test_its_guard_refuses_an_operation_of_ours(cluster: SimulatedCluster) -> None:
    await ask(cluster, "POST", "freeze/hv1", reason="Disks are replaced.")
    refused = await ask(cluster, "POST", "node/hv1/domain-state", 510, **{"domain-state": "flush"})
    assert refused == {"message": "Node hv1 is frozen: Disks are replaced.", "code": "node-frozen"}
    assert (await ask(cluster, "GET", "node/hv1/domain-state"))["domain_state"] == "ready"
    await ask(cluster, "POST", "node/hv2/domain-state", **{"domain-state": "flush"})
    await ask(cluster, "DELETE", "freeze/hv1")
    await ask(cluster, "POST", "node/hv1/domain-state", **{"domain-state": "flush"})


async def test_its_selector_chooses_the_node(cluster: SimulatedCluster) -> None:
    for number, (frozen, chosen) in enumerate([("hv1", "hv2"), ("hv2", "hv1")]):
        await ask(cluster, "POST", f"freeze/{frozen}", reason="disks")
        name = f"web{number}"
        xml = DOMAIN.format(name=name, number=number)
        await ask(cluster, "POST", "vm", xml=xml, selector="thawed")
        assert (await ask(cluster, "GET", f"vm/{name}/node"))["node"] == chosen
        await ask(cluster, "DELETE", f"freeze/{frozen}")
