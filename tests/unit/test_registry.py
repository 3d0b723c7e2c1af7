"""The registry: what plugins declare is collected in order, and everything that does not fit is refused by name."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import click
import pytest
from click.testing import CliRunner

from pvcd import (
    Component,
    ComponentKey,
    Context,
    Guard,
    Handlers,
    Health,
    HealthCheck,
    Listener,
    Message,
    NodeFact,
    NodeSelector,
    Operation,
    Record,
    Role,
    Routes,
    Section,
    SettingsSection,
    TemplateFilter,
    hookimpl,
)
from pvcd import Path as PathArgument
from pvcd.cluster.lease import Primary
from pvcd.cluster.presence import Presence
from pvcd.daemon.cli import main
from pvcd.plugin.loading import Plugin, PluginError, RefusedPlugin, load
from pvcd.plugin.registry import collect
from pvcd.settings import PluginsSection, SettingsError

from .conftest import Thing, plugin


class OtherThing(Record, path="/things/{id}"):
    id: str


class Another(Record, path="/another/{name}"):
    name: str


def routes(method: str = "get", path: str = "/{thing}") -> Routes:
    table = Routes("/api/v1/thing", tag="Things")
    if "{thing}" in path:

        async def one(context: Context, thing: Annotated[str, PathArgument("The thing")]) -> Message:
            """Show a thing."""
            return Message(message=thing)

        getattr(table, method)(path)(one)
    else:

        async def other(context: Context, item: Annotated[str, PathArgument("The item")]) -> Message:
            """Show an item."""
            return Message(message=item)

        getattr(table, method)(path)(other)
    return table


async def follow(context: Context, thing: Any) -> None:
    pass


async def answer(context: Context) -> None:
    pass


async def check(context: Context, operation: Operation) -> None:
    pass


async def look(context: Context) -> Health:
    return Health("ok", "Well.")


def shout(text: str) -> str:
    return text.upper()


def following() -> Handlers:
    handlers = Handlers()
    handlers.gone(Thing)(follow)
    return handlers


def answering() -> Handlers:
    handlers = Handlers()
    handlers.node_command("thing-count")(answer)
    return handlers


@contextlib.asynccontextmanager
async def opened(context: Context) -> AsyncIterator[None]:
    yield None


def component(name: str, *needs: ComponentKey[Any]) -> Component[Any]:
    return Component(ComponentKey(name), opened, roles=(Role.API,), needs=needs)


def selector(name: str) -> NodeSelector:
    return NodeSelector(name, "by name", lambda context, node: 0.0)


def collected(*modules: ModuleType) -> Any:
    return collect(Plugin(module.__name__, module, "given to the test") for module in modules)


def refusal(*modules: ModuleType) -> str:
    with pytest.raises(PluginError) as error:
        collected(*modules)
    return str(error.value)


CLASHES = {
    "routes": (routes(), routes(), "route 'GET /api/v1/thing/{}'"),
    "routes that differ in a name": (routes(), routes(path="/{item}"), "route 'GET /api/v1/thing/{}'"),
    "records": (Thing, Thing, "record '/things/{}'"),
    "records that differ in a name": (Thing, OtherThing, "record '/things/{}'"),
    "node_selectors": (selector("x"), selector("x"), "node selector 'x'"),
    "handlers": (following(), following(), f"handler '{__name__}.follow(Thing) gone'"),
    "handlers that answer": (answering(), answering(), "node command 'thing-count'"),
    "components": (component("x"), component("x"), "component 'x'"),
    "settings": (SettingsSection("x", Section), SettingsSection("x", Section), "settings section 'x'"),
    "node_facts": (NodeFact("x", answer), NodeFact("x", answer), "node fact 'x'"),
    "guards": (Guard("x", ("*",), check), Guard("x", ("a",), check), "guard 'x'"),
    "listeners": (Listener("x", ("*",), check), Listener("x", ("a",), check), "listener 'x'"),
    "template_filters": (TemplateFilter("x", "", shout), TemplateFilter("x", "", shout), "template filter 'x'"),
    "health_checks": (HealthCheck("x", "", look), HealthCheck("x", "", look), "health check 'x'"),
    "commands": (click.Command("x"), click.Command("x"), "subcommand 'x'"),
}


@pytest.mark.parametrize("kind", CLASHES)
def test_clash_names_both_plugins(kind: str) -> None:
    one, other, what = CLASHES[kind]
    hook = kind.split(" ", maxsplit=1)[0]
    modules = plugin("alpha", **{hook: [one]}), plugin("beta", **{hook: [other]})
    assert refusal(*modules) == f"The {what} is declared by both 'alpha' and 'beta'."


@pytest.mark.parametrize("kind", CLASHES)
def test_single_declaration_is_accepted(kind: str) -> None:
    one, _, what = CLASHES[kind]
    hook = kind.split(" ", maxsplit=1)[0]
    declared = collected(plugin("alpha", **{hook: [one]}))
    assert sum(map(len, declared.names["alpha"].values())) == 1, what


def test_path_may_have_several_methods() -> None:
    registry = collected(plugin("a", routes=[routes("get")]), plugin("b", routes=[routes("post")]))
    assert [route.name for route in registry.routes if route.tag == "Things"] == [
        "GET /api/v1/thing/{thing}",
        "POST /api/v1/thing/{thing}",
    ]


@pytest.mark.parametrize("name", ["api", "debug", "coordinators", "node", "plugins", "handlers_resync"])
def test_plugin_cannot_take_a_settings_section_of_the_core(name: str) -> None:
    module = plugin("alpha", settings=[SettingsSection(name, Section)])
    assert refusal(module) == f"The settings section {name!r} is declared by both 'core' and 'alpha'."


def test_a_plugin_cannot_take_a_record_of_the_core() -> None:
    class Mine(Record, path="/presence/{name}"):
        name: str

    assert "is declared by both 'core' and 'alpha'" in refusal(plugin("alpha", records=[Mine]))


def test_a_plugin_cannot_take_a_route_of_the_core() -> None:
    table = Routes("/api/v1", tag="Mine")

    @table.get()
    async def describe(context: Context) -> Message:
        """Say something else."""
        return Message(message="mine")

    message = refusal(plugin("alpha", routes=[table]))
    assert message == "The route 'GET /api/v1' is declared by both 'core' and 'alpha'."


@pytest.mark.parametrize("kind", ["routes", "records", "handlers", "settings", "components", "guards", "listeners"])
@pytest.mark.parametrize("wrong", [7, "text", int, object(), None])
def test_wrong_type_from_a_hook_is_refused(kind: str, wrong: object) -> None:
    message = refusal(plugin("alpha", **{kind: [wrong]}))
    assert message.startswith(f"Plugin 'alpha' returned {wrong!r} from register_{kind}(); it must return ")


def test_a_record_without_a_path_is_refused() -> None:
    class Nowhere(Record):
        pass

    assert "from register_records(); it must return Record." in refusal(plugin("alpha", records=[Nowhere]))


def test_a_hook_that_returns_no_list_is_refused() -> None:
    wrong: Any = None
    assert refusal(plugin("alpha", routes=wrong)).startswith("Plugin 'alpha' failed in register_routes(): TypeError:")


def test_a_hook_that_fails_is_named() -> None:
    module = plugin("alpha")

    def register_routes() -> list[Routes]:
        raise RuntimeError("no routes today")

    module.__dict__["register_routes"] = hookimpl(register_routes)
    assert refusal(module) == "Plugin 'alpha' failed in register_routes(): RuntimeError: no routes today."


def test_a_misspelt_hook_is_refused_with_its_plugin() -> None:
    message = refusal(plugin("alpha"), plugin("beta", rotues=[routes()]))
    assert message.startswith("Plugin 'beta' has an unknown or wrong hook: unknown hook 'register_rotues'")


def test_hook_with_an_unknown_argument_is_refused_with_its_plugin() -> None:
    def register_routes(app: Any) -> list[Routes]:
        return []

    module = plugin("beta")
    module.__dict__["register_routes"] = hookimpl(register_routes)
    assert "Plugin 'beta' has an unknown or wrong hook" in refusal(plugin("alpha"), module)


@pytest.mark.parametrize("name", ["api", "check", "hooks"])
def test_a_plugin_cannot_take_a_subcommand_of_the_core(name: str) -> None:
    message = refusal(plugin("alpha", commands=[click.Command(name)]))
    assert message == f"The subcommand {name!r} is declared by both 'core' and 'alpha'."


@pytest.mark.parametrize("function", [lambda text: text, routes().get, str.upper, 7])
def test_filter_that_cannot_be_imported_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match="'loud' must be a function at the top of a module"):
        TemplateFilter("loud", "", function)


def test_filter_with_an_unusable_name_is_refused() -> None:
    with pytest.raises(TypeError, match="must be an identifier; got 'a loud'"):
        TemplateFilter("a loud", "", shout)


def test_components_that_need_each_other_are_refused() -> None:
    one, other = ComponentKey[None]("one"), ComponentKey[None]("other")
    circle = [
        Component(one, opened, roles=(Role.API,), needs=(other,)),
        Component(other, opened, roles=(Role.API,), needs=(one,)),
    ]
    assert refusal(plugin("alpha", components=circle)) == (
        "Cannot order the components: these components need each other: one, other."
    )


def test_declarations_are_sorted_by_name_in_any_order_of_plugins() -> None:
    modules = [
        plugin("zeta", node_selectors=[selector("b"), selector("d")], records=[Thing]),
        plugin("alpha", node_selectors=[selector("c"), selector("a")], records=[Another], routes=[routes()]),
    ]
    one, other = collected(*modules), collected(*reversed(modules))
    assert [each.name for each in one.node_selectors] == ["a", "b", "c", "d"]
    templates = [record.template for record in one.records]
    assert templates == sorted(templates)
    assert (one.node_selectors, one.records, one.routes) == (other.node_selectors, other.records, other.routes)


def test_registry_without_plugins_has_only_the_core() -> None:
    registry = collected()
    assert set(registry.names) == {"core"}
    assert set(registry.records) >= {Presence, Primary}
    assert "GET /api/v1" in {route.name for route in registry.routes}
    assert registry.plugins == registry.sections == registry.node_selectors == ()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Install plugins, as name -> module, instead of the real ones."""
    points: dict[str, str] = {}

    def entry_points(group: str) -> EntryPoints:
        assert group == "pvcd"
        return EntryPoints(EntryPoint(name.split("/")[0], value, group) for name, value in points.items())

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    yield points
    for name in [name for name in sys.modules if name.startswith("pvcd_site_")]:
        del sys.modules[name]


def make_module(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> str:
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def refused_load(**section: Any) -> str:
    """Why the one plugin that cannot be used is refused."""
    (refused,) = (plugin for plugin in load(PluginsSection(**section)) if isinstance(plugin, RefusedPlugin))
    return refused.reason


def test_installed_plugins_are_loaded_by_name(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    installed["zeta"] = make_module(monkeypatch, plugin("mod_zeta"))
    installed["alpha"] = make_module(monkeypatch, plugin("mod_alpha"))
    assert [(one.name, one.origin) for one in load(PluginsSection())] == [
        ("alpha", "package mod_alpha"),
        ("zeta", "package mod_zeta"),
    ]


@pytest.mark.parametrize(
    ("requires", "problem"),
    [
        (None, "must be a range of versions"),
        ("", "must be a range of versions"),
        (1, "must be a range of versions"),
        (["1"], "must be a range of versions"),
        ("banana", "must be a range of versions"),
        (">=2", "requires plugin API >=2, but pvcd has 1.0"),
        ("<1", "requires plugin API <1, but pvcd has 1.0"),
    ],
)
def test_a_plugin_for_another_api_is_refused_with_its_name(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, requires: Any, problem: str
) -> None:
    installed["alpha"] = make_module(monkeypatch, plugin("mod_alpha", requires))
    message = refused_load()
    assert message.startswith("Plugin 'alpha' ")
    assert problem in message


def test_plugin_without_a_version_range_is_refused(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    installed["alpha"] = make_module(monkeypatch, ModuleType("mod_alpha"))
    assert "REQUIRES_PLUGIN_API must be a range of versions, such as '>=1,<2'; got None." in refused_load()


@pytest.mark.parametrize("requires", [">=1,<2", "~=1.0", "==1.*", ">=0.9"])
def test_plugin_for_this_api_is_loaded(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, requires: str
) -> None:
    installed["alpha"] = make_module(monkeypatch, plugin("mod_alpha", requires))
    assert len(load(PluginsSection())) == 1


def test_broken_plugin_is_refused_unless_it_is_disabled(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('out of order')")
    message = refused_load(directories=[tmp_path])
    assert message.startswith(
        f"Plugin 'broken' ({tmp_path / 'broken.py'}) could not be imported: ValueError: out of or"
    )
    assert "add it to pvc.plugins.disabled" in message
    assert load(PluginsSection(directories=(tmp_path,), disabled=frozenset({"broken"}))) == []
    installed["missing"] = "there.is.no.such.module"
    assert "Plugin 'missing' (package there.is.no.such.module) could not be imported" in refused_load()
    assert "ModuleNotFoundError" in refused_load()
    assert load(PluginsSection(disabled=frozenset({"missing"}))) == []


SOURCE = 'REQUIRES_PLUGIN_API = ">=1,<2"\n'


def test_files_and_packages_of_a_directory_are_plugins(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "single.py").write_text(SOURCE + "NAME = 'single'")
    package = tmp_path / "folder"
    package.mkdir()
    (package / "__init__.py").write_text(SOURCE + "from . import inner\nfrom .inner import NAME\n")
    (package / "inner.py").write_text("NAME = 'folder'")
    for other in ("_private.py", ".hidden.py", "notes.txt"):
        (tmp_path / other).write_text("raise ValueError('not a plugin')")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "empty").mkdir()
    loaded = load(PluginsSection(directories=(tmp_path,)))
    assert [(one.name, one.module.NAME, one.origin) for one in loaded] == [
        ("folder", "folder", str(package)),
        ("single", "single", str(tmp_path / "single.py")),
    ]


def test_the_second_of_two_plugins_of_one_name_is_refused_with_both_places(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed["alpha"] = make_module(monkeypatch, plugin("mod_alpha"))
    (tmp_path / "alpha.py").write_text(SOURCE)
    message = refused_load(directories=[tmp_path])
    assert message == f"Two plugins are called 'alpha': package mod_alpha and {tmp_path / 'alpha.py'}."


def test_the_second_of_two_packages_that_install_one_name_is_refused(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed["alpha/1"] = make_module(monkeypatch, plugin("mod_alpha"))
    installed["alpha/2"] = make_module(monkeypatch, plugin("mod_beta"))
    assert refused_load() == "Two plugins are called 'alpha': package mod_alpha and package mod_beta."


def test_missing_plugin_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"pvc.plugins.directories: .*nowhere is not a directory\."):
        load(PluginsSection(directories=(tmp_path / "nowhere",)))


def test_the_command_plugins_lists_what_each_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugins").mkdir()
    file = tmp_path / "pvc-api.yaml"
    file.write_text(f"pvc: {{plugins: {{directories: [{tmp_path / 'plugins'}]}}}}")
    monkeypatch.setenv("PVC_CONFIG_FILE", str(file))
    result = CliRunner().invoke(main, ["plugins"])
    assert result.exit_code == 0
    assert "node (package pvcd_plugins.node of pvcd " in result.stdout
    assert "  records: /nodes/{name}, /nodes/{name}/death, /nodes/{name}/report" in result.stdout
    assert "  node_selectors: load, mem, vcpus, vms" in result.stdout
    assert "GET /api/v1\n" not in result.stdout, "that is the core's"
    (tmp_path / "plugins" / "node.py").write_text(SOURCE)
    result = CliRunner().invoke(main, ["plugins"])
    assert (result.exit_code, result.stderr) == (1, "")
    assert "\n  refused: Two plugins are called 'node': package pvcd_plugins.node" in result.stdout
    assert "  node_selectors: load, mem, vcpus, vms" in result.stdout, "ours goes on"
    file.write_text("pvc: {plugins: {required: [policy]}}")
    result = CliRunner().invoke(main, ["plugins"])
    assert result.exit_code == 2
    assert "  refused: Plugin 'policy', which pvc.plugins.required names, is not installed.\n" in result.stdout
