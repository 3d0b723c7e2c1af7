"""Loading: a plugin that cannot be used is refused as a whole and named; the core and the other plugins go on."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from click.testing import CliRunner

from pvcd import Context, Message, NodeSelector, Routes, Section
from pvcd import Path as PathArgument
from pvcd.cluster.presence import Presence
from pvcd.daemon import cli
from pvcd.plugin import loading, registry
from pvcd.plugin.loading import Plugin, PluginError, RefusedPlugin
from pvcd.plugin.registry import collect, gather
from pvcd.settings import PluginsSection, SettingsError
from pvcd.testing import SimulatedCluster

from .conftest import Thing, plugin

GOOD = "from pvcd import *\nREQUIRES_PLUGIN_API = PLUGIN_API_1\n"
SETTINGS = {
    "debug": False,
    "coordinators": ["127.0.0.1"],
    "api": {"listen_address": "127.0.0.1", "authentication": {"enabled": False}, "ssl": {"enabled": False}},
}
OURS = ["ceph", "network", "node", "provisioner", "sandbox", "vm"]

BAD = {
    "that raises": "raise ValueError('out of order')",
    "that ends the process": "raise SystemExit(3)",
    "without a range": "",
    "for another API": "REQUIRES_PLUGIN_API = '>=7'",
    "that is no Python": "this is no Python",
    "that needs what is not there": "import there.is.no.such.module",
    "with a misspelt hook": GOOD + "@hookimpl\ndef register_rotues(): return []",
    "with a hook that raises": GOOD + "@hookimpl\ndef register_routes(): return 1 / 0",
    "with a hook that ends the process": GOOD + "@hookimpl\ndef register_routes(): exit()",
    "with a hook that returns nonsense": GOOD + "@hookimpl\ndef register_routes(): return [7]",
    "with a hook that returns None": GOOD + "@hookimpl\ndef register_routes(): pass",
    "with a record of ours": GOOD + "class VM(Record, path='/vms/{uuid}'):\n    uuid: str\n"
    "@hookimpl\ndef register_records(): return [VM]",
    "with a subcommand of ours": GOOD
    + "import click\n@hookimpl\ndef register_commands(): return [click.Command('api')]",
    "with a route that is none": GOOD + "@Routes('/api/v1/x', tag='X').get()\ndef get(context): pass",
    "with a path that is none": GOOD
    + "@Routes('api/v1', tag='X').get()\nasync def get(context) -> Message:\n    'x'\n",
    "with an odd path": GOOD + "@Routes('/api/v1/a{b', tag='X').get()\nasync def get(context) -> Message:\n    'x'\n",
    "that follows what is no record": GOOD
    + "handlers = Handlers()\n@handlers.on(int)\nasync def follow(context, number): pass\n"
    + "@hookimpl\ndef register_handlers(): return [handlers]",
    "that follows what it does not declare": GOOD
    + "handlers = Handlers()\nclass Own(Record, path='/own/{id}'):\n    id: str\n"
    + "@handlers.on(Own)\nasync def follow(context, own): pass\n@hookimpl\ndef register_handlers(): return [handlers]",
    "with an operation of ours": GOOD
    + "@hookimpl\ndef register_operations(): return [OperationKind('vm-start', 'X.', 'node')]",
    "with the operation of a task of ours": GOOD
    + "@hookimpl\ndef register_operations(): return [OperationKind('task-provision', 'X.', 'node')]",
    "with an operation that a node of ours does": GOOD
    + "@hookimpl\ndef register_operations(): return [OperationKind('guest-start', 'X.', 'node')]",
    "with a filter that is none": GOOD + "TemplateFilter('x', 'x', lambda text: text)",
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with one good plugin, and the settings that name it."""
    directory = tmp_path / "plugins"
    directory.mkdir()
    (directory / "good.py").write_text(
        GOOD + "@hookimpl\ndef register_settings(): return [SettingsSection('good', Section)]\n"
    )
    yield directory


def values(folder: Path, **plugins: Any) -> dict[str, Any]:
    return SETTINGS | {"plugins": {"directories": [str(folder)], **plugins}}


@pytest.mark.parametrize("kind", BAD)
def test_refused_plugin_does_not_affect_the_others(folder: Path, kind: str) -> None:
    (folder / "bad.py").write_text(BAD[kind])
    _, declared = registry.start(values(folder))
    assert [each.name for each in declared.plugins] == sorted([*OURS, "good"])
    (refused,) = declared.refused
    assert (refused.name, refused.origin) == ("bad", str(folder / "bad.py"))
    assert "bad" in refused.reason
    assert declared.complaints == [refused.reason]


@pytest.mark.parametrize("kind", BAD)
def test_refused_required_plugin_stops_the_start_with_a_sentence(folder: Path, kind: str) -> None:
    (folder / "bad.py").write_text(BAD[kind])
    with pytest.raises(PluginError) as caught:
        registry.start(values(folder, required=["bad"]))
    assert "bad" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_required_plugin_stops_the_start(folder: Path) -> None:
    with pytest.raises(PluginError, match=r"Plugin 'policy', which pvc.plugins.required names, is not installed"):
        registry.start(values(folder, required=["policy"]))
    with pytest.raises(PluginError, match=r"Plugin 'good', which pvc.plugins.required names, is not installed"):
        registry.start(values(folder, required=["good"], disabled=["good"]))


def test_refused_built_in_plugin_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvcd_plugins.node.REQUIRES_PLUGIN_API", ">=7")
    with pytest.raises(PluginError, match="Plugin 'node' requires plugin API >=7"):
        registry.start(SETTINGS)


@pytest.mark.parametrize("place", ["import", "hook"])
def test_blocking_plugin_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setattr(loading, "LOAD_SECONDS", 0.05)
    never = threading.Event()
    monkeypatch.setattr("pvcd.testing.never", never, raising=False)
    wait = "import pvcd.testing; pvcd.testing.never.wait(60)"
    hook = f"@hookimpl\ndef register_routes():\n    {wait}\n"
    (folder / "bad.py").write_text(GOOD + (wait if place == "import" else hook))
    try:
        _, declared = registry.start(values(folder))
    finally:
        never.set()
    assert "it took longer than 0.05 s" in declared.refused[0].reason
    assert len(declared.plugins) == 7


def third_party(name: str, **declared: Any) -> Plugin:
    return Plugin(name, plugin(name, **declared), "given to the test", required=False)


def test_no_declaration_of_a_refused_plugin_is_used() -> None:
    one = third_party("one", records=[Thing], node_selectors=[NodeSelector("a", "", lambda *_: 0)])
    two = third_party("two", records=[Thing], node_selectors=[NodeSelector("b", "", lambda *_: 0)])
    declared = gather([two, one])
    assert [each.name for each in declared.node_selectors] == ["a"]
    assert [each.name for each in declared.plugins] == ["one"]
    assert declared.refused == (
        RefusedPlugin("two", "given to the test", "The record '/things/{}' is declared by both 'one' and 'two'."),
    )


def test_required_plugin_keeps_its_name_against_one_that_sorts_first() -> None:
    selector = NodeSelector("a", "", lambda *_: 0)
    required = Plugin("zeta", plugin(node_selectors=[selector]), "given to the test")
    declared = collect([third_party("alpha", node_selectors=[selector]), required])
    assert [each.name for each in declared.refused] == ["alpha"]
    assert declared.names["zeta"] == {"node_selectors": ("a",)}
    assert "alpha" not in declared.names


def test_owner_of_a_declaration_is_known() -> None:
    declared = collect([third_party("one", records=[Thing])])
    assert declared.owner(declared.records[-1]) == "plugin 'one'"
    assert declared.owner(Presence) == "plugin 'core'"


async def test_plugin_cannot_take_requests_from_the_core() -> None:
    table = Routes("/api/v1", tag="All")

    @table.get("/{word}")
    async def anything(context: Context, word: Annotated[str, PathArgument("A word")]) -> Message:
        """Answer whatever is asked."""
        return Message(message="mine")

    async with SimulatedCluster([], [plugin(routes=[table])]) as cluster:
        assert "checks" in (await cluster.request("GET", "/api/v1/health")).json
        assert (await cluster.request("GET", "/api/v1/other")).json == {"message": "mine"}


# Settings


def test_section_of_a_refused_plugin_is_ignored_with_a_sentence(folder: Path) -> None:
    (folder / "bad.py").write_text(BAD["that raises"])
    settings, declared = registry.start(values(folder) | {"bad": {"word": "Hello"}, "good": None})
    assert declared.ignored == ("bad",)
    assert declared.complaints[1].startswith("pvc.bad is ignored: no plugin declares this section")
    assert settings.of(Section) is not None


@pytest.mark.parametrize("wrong", [{"goood": {}}, {"debugg": True}])
def test_unknown_section_is_an_error_while_no_plugin_is_refused(folder: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"pvc\.\w+: unknown setting, did you mean"):
        registry.start(values(folder) | wrong)
    (folder / "bad.py").write_text(BAD["that raises"])
    with pytest.raises(SettingsError, match=r"pvc.debugg: unknown setting, did you mean"):
        registry.start(values(folder) | {"debugg": True})


# What is said


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run pvcd with the plugins of the folder, and more settings."""

    def run(*arguments: str, **plugins: Any) -> Any:
        file = tmp_path / "pvc-api.yaml"
        file.write_text(yaml.safe_dump({"pvc": values(folder, **plugins)}))
        monkeypatch.setenv("PVC_CONFIG_FILE", str(file))
        return CliRunner().invoke(cli.main, arguments)

    return run


def test_pvcd_plugins_names_refused_plugins(folder: Path, run: Callable[..., Any]) -> None:
    assert run("plugins").exit_code == 0
    (folder / "bad.py").write_text(BAD["that raises"])
    result = run("plugins")
    assert result.exit_code == 1
    assert f"bad ({folder / 'bad.py'})\n  refused: Plugin 'bad' " in result.stdout
    assert f"good ({folder / 'good.py'})\n  sections: good\n" in result.stdout
    assert "vm (package pvcd_plugins.vm of pvcd " in result.stdout
    assert run("plugins", required=["bad"]).exit_code == 2


def test_pvcd_check_names_refused_plugins(folder: Path, run: Callable[..., Any]) -> None:
    assert run("check").exit_code == 0
    (folder / "bad.py").write_text(BAD["that raises"])
    result = run("check")
    complaints = [line for line in result.stderr.splitlines() if not line.startswith("Warning: ")]
    assert (result.exit_code, len(complaints)) == (1, 1)
    assert complaints[0].startswith("Plugin 'bad' ")
    assert result.stdout.endswith("plugins: ceph, good, network, node, provisioner, sandbox, vm.\n")
    assert run("check", required=["bad"]).exit_code == 2


def test_pvcd_openapi_works_without_refused_plugins(folder: Path, run: Callable[..., Any]) -> None:
    (folder / "bad.py").write_text(BAD["that raises"])
    assert run("openapi").exit_code == 0
    assert run("openapi").stderr.startswith("Plugin 'bad' ")
    assert run("openapi", required=["bad"]).exit_code == 2


COMMAND = (
    GOOD
    + """
import click

@click.command()
def hello():
    "Greet."
    click.echo("Hello")

@hookimpl
def register_commands(): return [hello]
"""
)


def test_subcommand_of_a_plugin_is_found_and_listed(folder: Path, run: Callable[..., Any]) -> None:
    (folder / "greeting.py").write_text(COMMAND)
    assert run("hello").stdout == "Hello\n"
    assert "Greet." in run("hello", "--help").stdout
    assert re.search(r"\n  hello +Greet\.\n", run("--help").stdout)


def test_unknown_subcommand_is_refused_with_the_plugins_left_out(folder: Path, run: Callable[..., Any]) -> None:
    (folder / "greeting.py").write_text(COMMAND + "raise ValueError('out of order')")
    result = run("hello")
    assert result.exit_code == 2
    assert "Plugin 'greeting' " in result.stderr
    assert "No such command 'hello'" in result.stderr


def test_subcommands_of_the_core_load_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(settings: PluginsSection, only: str | None = None) -> list[Plugin]:
        raise AssertionError("it loads plugins")

    monkeypatch.setattr(loading, "load", load)
    assert CliRunner().invoke(cli.main, ["api", "--help"]).exit_code == 0


def test_help_of_the_core_survives_a_broken_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pvc-api.yaml").write_text("{")
    monkeypatch.setenv("PVC_CONFIG_FILE", str(tmp_path / "pvc-api.yaml"))
    result = CliRunner().invoke(cli.main, ["--help"])
    assert result.exit_code == 0
    assert "is not valid YAML" in result.stderr
    assert "\n  api " in result.stdout


def test_sandbox_imports_no_other_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str | None] = []
    real = loading.load

    def load(settings: PluginsSection, only: str | None = None) -> list[Plugin | RefusedPlugin]:
        found = real(settings, only)
        loaded.extend(plugin.name for plugin in found)
        return found

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.delenv("PVC_CONFIG_FILE", raising=False)
    assert CliRunner().invoke(cli.main, ["sandbox", "--help"]).exit_code == 0
    assert loaded == ["sandbox"]
