"""Packages and folders of third parties add to pvcd without any change of it.

One is frozen with plugin API 1, one is the example that uses every hook, and one is what `pvcd plugin new` writes.
"""

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

from pvcd.plugin.loading import load
from pvcd.plugin.registry import collect
from pvcd.programs.runner import run
from pvcd.settings import PluginsSection
from pvcd.testing import SimulatedCluster
from pvcd_plugins.provisioner.programs.userdata import OutsideRendering
from pvcd_plugins.vm.components import HYPERVISOR
from pvcd_plugins.vm.hypervisor.fake import FakeHypervisor

ROOT = Path(__file__).parents[2]
FROZEN = ROOT / "tests" / "frozen" / "plugin_api_1"
EXAMPLE = ROOT / "examples" / "pvcd-notes"
DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>00000000-0000-4000-8000-00000000000{number}</uuid>
<memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"""


async def python(*arguments: str, check: bool = True, **environment: str) -> str:
    """Return the output of a Python program, which must succeed."""
    result = await run([sys.executable, "-m", *arguments], timeout=110, environment=environment, check=False)
    said = (result.stdout + result.stderr).decode()
    assert result.returncode == 0 or not check, said
    return said


class Installed:
    """Third-party packages as installed, and their sources."""

    def __init__(self, directory: Path) -> None:
        self.sources, self.target = directory / "sources", directory / "target"
        self.config = directory / "pvc-api.yaml"
        self.config.write_text("pvc: {}")
        path = os.pathsep.join(filter(None, [str(self.target), os.environ.get("PYTHONPATH")]))
        self.environment = {"PVC_CONFIG_FILE": str(self.config), "PYTHONPATH": path}

    async def install(self, project: Path, module: str) -> None:
        """Install a project from its wheel, and remove from its sources what the wheel contains."""
        source, wheels = self.sources / project.name, self.sources / f"{project.name}-wheel"
        await asyncio.to_thread(shutil.copytree, project, source)
        pip = ("pip", "--disable-pip-version-check", "--quiet")
        await python(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source))
        (wheel,) = wheels.iterdir()
        await python(*pip, "install", "--no-deps", "--target", str(self.target), "--upgrade", str(wheel))
        await asyncio.to_thread(shutil.rmtree, source / module)
        await asyncio.to_thread(shutil.rmtree, source / "build")

    async def plugins(self) -> str:
        """Return the output of `pvcd plugins`."""
        return await python("pvcd", "plugins", **self.environment)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install all three packages."""
    directory = tmp_path_factory.mktemp("third-parties")
    installed = Installed(directory)

    async def install() -> None:
        await python("pvcd", "plugin", "new", "greeter", "--directory", str(directory), **installed.environment)
        await installed.install(FROZEN, "pvcd_example")
        await installed.install(EXAMPLE, "pvcd_notes")
        await installed.install(directory / "pvcd-greeter", "pvcd_greeter")

    asyncio.run(install())
    return installed


def listing(origin: str, name: str) -> str:
    """Return the expected output of `pvcd plugins` for the frozen plugin."""
    module = "pvcd_example" if name == "example" else f"pvcd_site_{name}"
    return (
        f"{name} ({origin})\n"
        f"  records: /freezes/{{node}}, /freezes/{{node}}/report\n"
        f"  routes: DELETE /api/v1/freeze/{{node}}, GET /api/v1/freeze, GET /api/v1/freeze/{{node}}/answer, "
        f"POST /api/v1/freeze/{{node}}\n"
        f"  handlers: {module}.handlers.follow(Freeze)\n"
        f"  node_commands: freeze-ask\n"
        f"  node_selectors: thawed\n"
        f"  guards: frozen-nodes\n"
        f"  listeners: frozen-nodes\n"
    )


async def test_installed_packages_are_found(installed: Installed) -> None:
    text = await installed.plugins()
    assert listing("package pvcd_example of pvcd-example 1.0.0", "example") in text
    for name in ("notes", "greeter"):
        assert f"\n{name} (package pvcd_{name} of pvcd-{name} 0.1.0)\n" in text
    assert "\nnode (package pvcd_plugins.node of pvcd " in text
    assert "refused" not in text
    installed.config.write_text("pvc: {plugins: {disabled: [example]}}")
    assert "pvcd_example" not in await installed.plugins()
    installed.config.write_text("pvc: {}")


@pytest.mark.parametrize("name", ["notes", "greeter"])
async def test_an_installed_package_passes_its_own_tests(installed: Installed, name: str) -> None:
    source = installed.sources / f"pvcd-{name}"
    quiet = ("-q", "-p", "no:cacheprovider", "-c", str(source / "pyproject.toml"))
    said = await python("pytest", *quiet, str(source / "tests"), **installed.environment)
    assert " passed" in said


@pytest.mark.parametrize("name", ["example", "notes", "greeter"])
async def test_an_installed_package_passes_the_check(installed: Installed, name: str) -> None:
    said = await python("pvcd", "plugin", "check", name, **installed.environment)
    assert said.count("\n") == said.count("ok ")


async def test_a_new_plugin_passes_its_linter_and_ours(installed: Installed, tmp_path: Path) -> None:
    await python("pvcd", "plugin", "new", "fresh", "--directory", str(tmp_path), **installed.environment)
    project = tmp_path / "pvcd-fresh"

    async def lint() -> None:
        await python("ruff", "check", "--no-cache", str(project))
        await python("ruff", "format", "--check", "--no-cache", str(project))

    await lint()
    shutil.copy(ROOT / "pyproject.toml", project)
    await lint()


@pytest.mark.parametrize("name", ["notes", "greeter"])
async def test_a_subcommand_of_an_installed_package_is_found(installed: Installed, name: str) -> None:
    assert await python("pvcd", name, "Hello", **installed.environment) == "# Hello\n"


async def test_a_broken_package_does_not_stop_others(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('out of order')")
    installed.config.write_text(f"pvc: {{plugins: {{directories: ['{tmp_path}']}}}}")
    said = await python("pvcd", "plugins", check=False, **installed.environment)
    installed.config.write_text("pvc: {}")
    assert f"broken ({tmp_path / 'broken.py'})\n  refused: Plugin 'broken' " in said
    assert "\nnotes (" in said


async def test_a_filter_of_a_folder_is_available_to_userdata() -> None:
    (plugin,) = (one for one in load(PluginsSection(directories=(EXAMPLE,))) if one.name == "pvcd_notes")
    (declared,) = collect([plugin]).template_filters
    rendering = OutsideRendering({declared.name: declared.function})
    assert await rendering.render("{{ 'a\nb' | notes_comment }}", {}) == "# a\n# b"


async def test_a_folder_is_found(tmp_path: Path) -> None:
    config = tmp_path / "pvc-api.yaml"
    config.write_text(f"pvc: {{plugins: {{directories: ['{FROZEN}', '{EXAMPLE}']}}}}")
    text = await python("pvcd", "plugins", PVC_CONFIG_FILE=str(config))
    assert listing(str(FROZEN / "pvcd_example"), "pvcd_example") in text
    assert f"pvcd_notes ({EXAMPLE / 'pvcd_notes'})\n  sections: notes\n" in text


@pytest.fixture(params=["package", "folder"])
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The frozen plugin, imported in either way."""
    before = set(sys.modules)
    if request.param == "package":
        monkeypatch.syspath_prepend(str(FROZEN))
        yield importlib.import_module("pvcd_example")
    else:
        loaded = load(PluginsSection(directories=(FROZEN,)))
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


async def test_its_node_command_is_answered_by_the_node(cluster: SimulatedCluster) -> None:
    await ask(cluster, "POST", "freeze/hv1", reason="disks")
    assert (await ask(cluster, "GET", "freeze/hv1/answer?question=Why"))["message"] == "Why disks"
    await cluster.stop_agent("hv1")
    assert (await ask(cluster, "GET", "freeze/hv1/answer?question=Why", 510))["code"] == "node-not-running"


async def test_its_listener_follows_an_operation_of_ours(cluster: SimulatedCluster) -> None:
    await ask(cluster, "POST", "freeze/hv2", reason="disks")
    await ask(cluster, "POST", "node/hv2/coordinator-state", **{"coordinator-state": "primary"})
    await cluster.advance(2)
    assert [each["changes"] for each in await ask(cluster, "GET", "freeze")] == [1]


async def test_its_guard_refuses_a_built_in_operation(cluster: SimulatedCluster) -> None:
    await ask(cluster, "POST", "freeze/hv1", reason="disks are replaced")
    refused = await ask(cluster, "POST", "node/hv1/domain-state", 510, **{"domain-state": "flush"})
    assert refused == {"message": "Cannot change node 'hv1': frozen (disks are replaced).", "code": "node-frozen"}
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
