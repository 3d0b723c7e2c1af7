"""Create a plugin project, or find one to check."""

from __future__ import annotations

import configparser
import importlib
import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

from pvcd.errors import Conflict, Invalid
from pvcd.plugin.loading import CORE, ENTRY_POINTS, Plugin, RefusedPlugin, import_file, load, plugin_file
from pvcd.plugin.registry import RESERVED, gather
from pvcd.settings import PluginsSection

SKELETON = Path(__file__).parent / "skeleton"
WORD = "skeleton"
"""Replaced by the plugin's name, in texts and in the names of files."""
FORM = re.compile(r"[a-z][a-z0-9]{1,19}")


def create(name: str, directory: Path) -> Path:
    """Write a small working plugin as a package of its own; return its folder."""
    _refuse(name)
    folder = directory / f"pvcd-{name}"
    if folder.exists():
        raise Conflict(f"Cannot create {str(folder)!r}: it exists already.")
    for source in _files(SKELETON):
        target = folder / str(source.relative_to(SKELETON)).replace(WORD, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text().replace(WORD, name))
    return folder


def _files(folder: Path) -> Iterator[Path]:
    """Return the files of a project, without those that tools have made."""
    return (path for path in sorted(folder.rglob("*")) if path.suffix in (".py", ".cfg", ".toml", ".md"))


def _refuse(name: str) -> None:
    """Raise an error unless the name is possible for a new plugin."""
    if not FORM.fullmatch(name):
        raise Invalid(f"name must be 2 to 20 lower case letters and digits, the first a letter; got {name!r:.60}.")
    declared = gather(load(PluginsSection()))
    taken: dict[str, set[str | None]] = {
        "a plugin": {CORE, *(plugin.name for plugin in declared.plugins)},
        "a part of the API": {route.path.split("/")[3] for route in declared.routes if route.path.count("/") > 2},
        "a subcommand": {*RESERVED["cli_commands"], *(command.name for command in declared.cli_commands)},
        "a node selector": {selector.name for selector in declared.node_selectors},
        "a health check": {check.name for check in declared.health_checks},
        "a kind of tasks": {step.kind for step in declared.steps},
    }
    for what, names in taken.items():
        if name in names:
            raise Conflict(f"Cannot name a plugin {name!r}: {what} has this name.")


def find(target: str) -> Plugin:
    """Find the plugin of a project's folder, a package or file, or an installed plugin by its name."""
    path = Path(target)
    if not path.exists():
        return _installed(target)
    points = list(_entry_points(path))
    if points:
        sys.path.insert(0, str(path.resolve()))
        return Plugin(points[0].name, importlib.import_module(points[0].module), str(path), required=False)
    file = plugin_file(path)
    if file is None:
        raise Invalid(
            f"plugin must be a Python file or package, or a project whose setup.cfg names one; got {str(path)!r}."
        )
    return Plugin(path.resolve().stem, import_file(path.resolve().stem, file), str(path), required=False)


def _installed(name: str) -> Plugin:
    for plugin in load(PluginsSection()):
        if plugin.name == name and isinstance(plugin, RefusedPlugin):
            raise Invalid(plugin.reason)
        if plugin.name == name and isinstance(plugin, Plugin):
            return plugin
    raise Invalid(f"There is no plugin {name!r:.200}, neither installed nor at this path.")


def _entry_points(path: Path) -> Iterator[EntryPoint]:
    """Yield the plugins that a project's setup.cfg names."""
    setup = configparser.ConfigParser()
    setup.read(path / "setup.cfg")
    lines = setup.get("options.entry_points", ENTRY_POINTS, fallback="").splitlines()
    for line in filter(None, lines):
        name, _, value = line.partition("=")
        yield EntryPoint(name.strip(), value.strip(), ENTRY_POINTS)
