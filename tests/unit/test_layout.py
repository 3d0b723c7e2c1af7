"""The rules of the house: how large things may be, what may import what, and what has to be said."""

from __future__ import annotations

import ast
import configparser
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pvcd
from pvcd.http.routes import Route
from pvcd.plugin import hookspecs
from pvcd.plugin.loading import Plugin, load
from pvcd.plugin.registry import collect
from pvcd.settings import PluginsSection

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "pvcd-notes" / "pvcd_notes"
MODULES = {
    ".".join((name, *file.relative_to(ROOT / folder).with_suffix("").parts)).removesuffix(".__init__"): file
    for name, folder in (("pvcd", "pvcd"), ("pvcd_plugins", "plugins"))
    for file in sorted((ROOT / folder).rglob("*.py"))
    if not {"examples", "skeleton"} & set(file.parts)  # which are for users to change, and run elsewhere
}
PLUGINS = sorted(path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py"))
RANKS = {"node": 1, "ceph": 2, "network": 2, "vm": 3, "provisioner": 4, "sandbox": 5}
"""A plugin uses those of a lower rank only; where it must reach up, it declares an event."""
ROOMS = (
    *("errors", "clock", "records", "settings", "process", "programs", "store", "declare", "cluster", "http", "tasks"),
    *("sitehooks", "plugin", "daemon", "testing", "kit"),
)
"""The rooms of the core from the ground up: a module imports its own room and those below it."""

FILE_NAMES = {
    *("__init__", "records", "states", "params", "routes", "views", "service", "handlers", "operations"),
    *("settings", "components", "facts", "selectors", "health"),
}
"""The same in every plugin of the cluster; a role that it lacks is a file that it lacks."""
OWN_FILES = {
    "ceph": {
        "cluster": "the door to Ceph and to a node's disks",
        "mapping": "the door to volumes as local block devices",
        "refresh": "Ceph -> records, as it is now",
    },
    "network": {
        "bridge": "the door to a node's links",
        "firewall": "the door to a node's packet filter",
        "dhcp": "the door to DHCP and the host names of each network",
        "dns": "the door to the name server for all networks",
        "dnsmasq": "running dnsmasq, for both of these doors",
        "rules": "the rules for each kind of record, one module each",
    },
    "node": {
        "keepalive": "what makes it a node",
    },
    "provisioner": {
        "grammar": "what names, disks, MAC templates and arguments may be",
        "programs": "the doors to compiling scripts and rendering userdata, and the programs behind them",
        "steps": "how a VM is built, step by step",
        "variables": "the variables of a VM, each value with its source",
        "macs": "the MAC addresses of a VM, by template or at random",
        "domain": "a VM to be built -> libvirt XML",
        "volumes": "its volumes, created, mapped, and undone",
        "filesystems": "how its disks are formatted",
        "installation": "the door to running scripts",
        "metadata": "the door to guests that ask who they are",
        "cli": "pvcd examples",
    },
    "vm": {
        "domain": "record <-> libvirt XML",
        "policy": "what a VM's XML may reach of its node",
        "free": "the policy's table of what needs no grant",
        "grants": "the policy's table of what each grant opens",
        "schema": "libvirt's own schema of domains, and where a document violates it",
        "definition": "the rules for defining VMs, used by the rules of others too",
        "placement": "the choice of a VM's node: used by the rules and the selectors",
        "volumes": "a VM's Ceph volumes: claims, removal, locks",
        "mac_claims": "the claims of VMs on MAC addresses",
        "indexes": "tables about VMs that are kept up to date with the store",
        "hypervisor": "the door to libvirt: a protocol, the real one and a fake",
        "backoff": "growing pauses between the starts of a guest that keeps dying",
        "console": "the tail of a log, a pure function of files",
    },
}


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def imports(file: Path) -> Iterator[str]:
    """The full name of everything that a file imports anywhere, for whatever purpose."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(package: str) -> set[str]:
    """The modules of ours that import a package of others."""
    return {
        name
        for name, file in MODULES.items()
        if any(each == package or each.startswith(package + ".") for each in imports(file))
    }


def module_of(name: str) -> str | None:
    """The module of ours that an imported name is, or is of."""
    return name if name in MODULES else name.rpartition(".")[0] if name.rpartition(".")[0] in MODULES else None


def reached(module: str) -> set[str]:
    """All modules of ours that a module needs, itself included; what only type checkers need counts as well."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(filter(None, map(module_of, imports(MODULES[name]))))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_400_lines_at_most_and_says_what_it_is_for(module: str) -> None:
    lines = MODULES[module].read_text().splitlines()
    assert len(lines) <= 400
    assert ast.get_docstring(parsed(MODULES[module])), "it has no docstring"
    assert lines[0].startswith('"""'), "its docstring is not its first line"


@pytest.mark.parametrize("module", MODULES)
def test_a_function_has_40_lines_at_most(module: str) -> None:
    functions = (
        node for node in ast.walk(parsed(MODULES[module])) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > 40} == {}


def undescribed(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """The public classes and functions without a docstring; constructors and dunders speak for themselves."""
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from undescribed(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"pvcd.clock"}))  # whose protocol says it for all
def test_public_classes_and_functions_say_what_they_are_for(module: str) -> None:
    assert list(undescribed(parsed(MODULES[module]).body)) == []


@pytest.mark.parametrize("module", MODULES)
def test_no_file_has_a_name_that_says_nothing(module: str) -> None:
    assert not set(module.split(".")) & {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def beginning(route: Route) -> str:
    """Return the path of a route up to the part after /api/v1."""
    return "/".join(route.path.split("/")[:4])


def plugin_names() -> re.Pattern[str]:
    """Match what only a plugin of ours may name: its package, settings section, routes and records.

    `pvc.node` is a section of the core, because every daemon has to know the name of its machine.
    """
    core, everything = collect([]), collect(load(PluginsSection()))
    sections = {section.name for section in everything.sections}
    paths = {beginning(route) for route in everything.routes} - {beginning(route) for route in core.routes}
    roots = {record.root for record in everything.records} - {record.root for record in core.records}
    return re.compile(rf"pvcd_plugins|\bpvc\.({'|'.join(sections)})\b|(?<![\w.}}])({'|'.join(paths | roots)})\b")


def test_core_names_no_plugin() -> None:
    names = plugin_names()
    core = [file for name, file in MODULES.items() if not name.startswith("pvcd_plugins")]
    lines = [(file.name, line.strip()) for file in core for line in file.read_text().splitlines()]
    assert [(name, line) for name, line in lines if names.search(line)] == []


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("pvcd.") and name != "pvcd.__main__"])
def test_a_module_of_the_core_imports_only_rooms_below_its_own(module: str) -> None:
    assert room(module) in ROOMS
    for imported in imports(MODULES[module]):
        if imported.startswith("pvcd."):
            assert ROOMS.index(room(imported)) <= ROOMS.index(room(module)), f"{module} imports {imported}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    uses = {name: set(filter(None, map(module_of, imports(file)))) - {name} for name, file in MODULES.items()}
    free: set[str] = set()
    while more := {name for name in uses if name not in free and uses[name] <= free}:
        free |= more
    assert {name: sorted(uses[name] - free) for name in uses if name not in free} == {}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_uses_the_services_of_lower_ones_only(plugin: str) -> None:
    for name, file in MODULES.items():
        if name.startswith(f"pvcd_plugins.{plugin}"):
            for imported in imports(file):
                package, _, rest = imported.partition(".")
                other = rest.split(".")[0]
                if package == "pvcd_plugins" and other != plugin:
                    assert RANKS[other] < RANKS[plugin], f"{name} imports {imported}"
                    assert module_of(imported) == f"pvcd_plugins.{other}.service", f"{name} imports {imported}"


def test_only_one_place_knows_each_outside_thing() -> None:
    assert {name for name in importers("kazoo") if not name.startswith("pvcd.store.")} == set()
    libvirt = {f"pvcd_plugins.vm.hypervisor.{name}" for name in ("connection", "guests", "libvirt")}
    assert importers("libvirt") == libvirt
    assert {name for name in importers("subprocess") if not name.startswith("pvcd_plugins.sandbox.")} == set()
    aiohttp = {name for name in importers("aiohttp") if not name.startswith(("pvcd.http.", "pvcd_plugins.sandbox."))}
    metadata = {f"pvcd_plugins.provisioner.metadata.{name}" for name in ("answers", "server")}
    assert aiohttp == {"pvcd.daemon.api", "pvcd.testing", *metadata}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_service_needs_no_libvirt(plugin: str) -> None:
    service = f"pvcd_plugins.{plugin}.service"
    assert reached(service) & importers("libvirt") == set()
    assert "aiohttp" not in {name.split(".")[0] for name in imports(MODULES[service])}


@pytest.mark.parametrize("plugin", OWN_FILES)
def test_a_plugin_uses_the_file_names_of_every_plugin(plugin: str) -> None:
    folder = ROOT / "plugins" / plugin
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert names - FILE_NAMES - set(OWN_FILES[plugin]) == set()
    assert set(OWN_FILES[plugin]) <= names, "an exception that is none any more"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_begins_with_its_hooks_one_return_each(plugin: str) -> None:
    functions = [node for node in parsed(MODULES[f"pvcd_plugins.{plugin}"]).body if isinstance(node, ast.FunctionDef)]
    for function in functions:
        assert function.name.startswith("register_")
        assert [type(node) for node in function.body] == [ast.Expr, ast.Return], function.name


@pytest.mark.parametrize("module", MODULES)
def test_no_product_code_blocks_or_uses_a_shell(module: str) -> None:
    for node in ast.walk(parsed(MODULES[module])):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("time.sleep", "os.system", "os.popen", "asyncio.create_subprocess_shell")
            assert not any(keyword.arg == "shell" for keyword in node.keywords), called


def test_every_package_is_shipped() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = setup["options"]["packages"].split()
    there = [name for name, file in MODULES.items() if file.name == "__init__.py"]
    assert packages == sorted(there)


def test_every_built_in_plugin_is_an_entry_point() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["pvcd"].split("\n")
    assert [line for line in lines if line] == [f"{name} = pvcd_plugins.{name}" for name in PLUGINS]


HOOKS = [name for name in vars(hookspecs) if name.startswith("register_")]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_explained(hook: str) -> None:
    specification = getattr(hookspecs, hook)
    assert inspect.getdoc(specification)
    assert list(inspect.signature(specification).parameters) == []


def implemented(module: ast.Module) -> set[str]:
    return {node.name for node in module.body if isinstance(node, ast.FunctionDef)} & set(HOOKS)


def test_every_hook_is_used_by_a_plugin_of_ours_or_by_the_example() -> None:
    ours = {hook for plugin in PLUGINS for hook in implemented(parsed(MODULES[f"pvcd_plugins.{plugin}"]))}
    example = implemented(parsed(EXAMPLE / "__init__.py"))
    assert set(HOOKS) - ours - example == set()


def test_the_example_uses_every_hook() -> None:
    assert implemented(parsed(EXAMPLE / "__init__.py")) == set(HOOKS)


@pytest.mark.parametrize("file", sorted(EXAMPLE.glob("*.py")), ids=lambda file: file.stem)
def test_the_example_is_as_we_write(file: Path) -> None:
    assert ast.get_docstring(parsed(file))
    assert list(undescribed(parsed(file).body)) == []


@pytest.mark.parametrize("plugin", load(PluginsSection()), ids=lambda plugin: plugin.name)
def test_what_is_installed_is_what_is_here(plugin: Plugin) -> None:
    assert plugin.module.__file__ is not None
    assert Path(plugin.module.__file__).resolve() == MODULES[f"pvcd_plugins.{plugin.name}"]


def test_what_plugins_may_use_is_complete_and_in_order() -> None:
    tree = parsed(MODULES["pvcd"])
    froms = [node for node in tree.body if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pvcd")]
    imported = [alias.name for node in froms for alias in node.names]
    assert set(pvcd.__all__) == set(imported)
    assert pvcd.__all__ == sorted(pvcd.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    for name in pvcd.__all__:
        assert getattr(pvcd, name) is not None


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("pvcd_plugins.")])
def test_our_plugins_use_of_the_core_only_what_others_may_use(module: str) -> None:
    ours = [name for name in imports(MODULES[module]) if name.split(".")[0] == "pvcd"]
    assert [name for name in ours if name.removeprefix("pvcd.") not in pvcd.__all__] == []
