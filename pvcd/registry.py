"""Loads the plugins, collects their declarations, refuses clashes, and freezes the result."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from pvcd import commands, documents, hookspecs, logins, sitehooks
from pvcd.context import Component, in_order
from pvcd.general import routes as general_routes
from pvcd.handlers import Answer, Handler, Handlers
from pvcd.http.routes import Route, Routes
from pvcd.lease import Primary
from pvcd.nodes import NodeFact, NodeSelector
from pvcd.operations import Guard, Listener, OperationKind
from pvcd.records import Record
from pvcd.schema import Schema
from pvcd.sessions import Session
from pvcd.settings import PluginsSection, Section, Settings, SettingsError, SettingsSection, build, plugins_section
from pvcd.tasks import Step, logs, queue
from pvcd.tasks.records import RECORDS as TASK_RECORDS
from pvcd.tasks.steps import operation_of

ENTRY_POINTS = "pvcd"
CORE = "the core"
CORE_RECORDS: tuple[type[Record], ...] = (
    *(Schema, Session, Primary, logins.Login),
    *commands.COMMAND_RECORDS,
    *TASK_RECORDS,
)
CORE_HANDLERS = (*commands.CORE_HANDLERS, *logins.handlers.handlers)
CORE_ROUTES = (*general_routes, *documents.routes)
CORE_COMPONENTS: tuple[Component[Any], ...] = (
    documents.COMPONENT,
    logs.COMPONENT,
    queue.COMPONENT,
    sitehooks.COMPONENT,
)
CORE_SECTIONS = tuple(SettingsSection(name, Section) for name in Settings.model_fields)


class PluginError(Exception):
    """A plugin cannot be used: one sentence that names it."""


@dataclass(frozen=True)
class Plugin:
    """A loaded plugin: its name, its module and where it came from."""

    name: str
    module: ModuleType
    origin: str


@dataclass(frozen=True)
class Registry:
    """What all plugins declared, each kind sorted by name."""

    plugins: tuple[Plugin, ...] = ()
    sections: tuple[SettingsSection, ...] = ()
    records: tuple[type[Record], ...] = CORE_RECORDS
    components: tuple[Component[Any], ...] = CORE_COMPONENTS
    routes: tuple[Route, ...] = CORE_ROUTES
    handlers: tuple[Handler, ...] = CORE_HANDLERS
    answers: tuple[Answer, ...] = ()
    node_facts: tuple[NodeFact, ...] = ()
    node_selectors: tuple[NodeSelector, ...] = ()
    operations: tuple[OperationKind, ...] = ()
    """What daemons do by themselves."""
    guards: tuple[Guard, ...] = ()
    listeners: tuple[Listener, ...] = ()
    steps: tuple[Step, ...] = ()
    """In the order in which the tasks of each kind run them."""

    @cached_property
    def known_operations(self) -> Mapping[str, OperationKind]:
        """All operations, by name: those of the routes, those of tasks, and what daemons do by themselves."""
        kinds = [kind for route in self.routes for kind in route.kinds]
        kinds += [operation_of(kind) for kind in dict.fromkeys(step.kind for step in self.steps)]
        return {kind.name: kind for kind in sorted([*kinds, *self.operations], key=_name)}


def start(values: dict[str, Any]) -> tuple[Settings, Registry]:
    """From the raw settings to checked settings and all declarations: what every daemon does first."""
    registry = collect(load(plugins_section(values)))
    return build(values, registry.sections), registry


def load(settings: PluginsSection) -> list[Plugin]:
    """Import the installed plugins and those of the directories, but for the disabled ones."""
    plugins: dict[str, Plugin] = {}
    for name, origin, import_it in _candidates(settings.directories):
        if name in settings.disabled:
            continue
        if name in plugins:
            raise PluginError(f"Two plugins are called {name!r}: {plugins[name].origin} and {origin}.")
        try:
            module = import_it()
        except Exception as error:
            raise PluginError(
                f"Plugin {name!r} ({origin}) could not be imported: {type(error).__name__}: {error}. "
                f"Mend it, or name it in pvc.plugins.disabled."
            ) from error
        _check_version(name, module)
        plugins[name] = Plugin(name, module, origin)
    return [plugins[name] for name in sorted(plugins)]


def _candidates(directories: Iterable[Path]) -> Iterator[tuple[str, str, Callable[[], ModuleType]]]:
    for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS)):
        yield entry.name, f"package {entry.value}", entry.load
    for directory in directories:
        if not directory.is_dir():
            raise SettingsError([f"pvc.plugins.directories: {directory} is not a directory."])
        for path in sorted(directory.iterdir()):
            file = path / "__init__.py" if path.is_dir() else path
            if file.suffix == ".py" and file.is_file() and not path.name.startswith(("_", ".")):
                yield path.stem, str(path), lambda path=path, file=file: _import_file(path.stem, file)  # type: ignore[misc]


def _import_file(name: str, file: Path) -> ModuleType:
    full_name = f"pvcd_site_{name}"  # of one part: `from . import` looks for the parent of others
    search = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(full_name, file, submodule_search_locations=search)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full_name]
        raise
    return module


def _check_version(name: str, module: ModuleType) -> None:
    wanted = getattr(module, "REQUIRES_PLUGIN_API", None)
    try:
        versions = SpecifierSet(wanted if isinstance(wanted, str) and wanted else "nonsense")
    except InvalidSpecifier:
        raise PluginError(
            f"Plugin {name!r} must say which plugin API it works with, for example "
            f'REQUIRES_PLUGIN_API = ">=1,<2", not {wanted!r}.'
        ) from None
    if hookspecs.PLUGIN_API not in versions:
        raise PluginError(
            f"Plugin {name!r} works with the plugin API {wanted}, but this is {hookspecs.PLUGIN_API}: "
            f"update one of them."
        )


def collect(plugins: Iterable[Plugin]) -> Registry:
    """Ask every plugin for its declarations; two of one name stop the start and name both plugins."""
    plugins = tuple(plugins)
    ask = _Collector(_register(plugins)).ask
    sections = ask("register_settings", SettingsSection)
    _unique("settings section", _core(CORE_SECTIONS) + sections)
    routes = [(who, route) for who, table in ask("register_routes", Routes) for route in table]
    tables = ask("register_handlers", Handlers)
    registry = Registry(
        plugins=plugins,
        sections=_unique("settings section", sections),
        records=_unique("record", _core(CORE_RECORDS) + ask("register_records", Record), _record_name),
        components=_unique("component", _core(CORE_COMPONENTS) + ask("register_components", Component)),
        routes=_unique("route", _core(CORE_ROUTES) + routes, _route_name),
        handlers=_unique(
            "handler", _core(CORE_HANDLERS) + [(who, one) for who, table in tables for one in table.handlers]
        ),
        answers=_unique("command", [(who, one) for who, table in tables for one in table.answers]),
        node_facts=_unique("node fact", ask("register_node_facts", NodeFact)),
        node_selectors=_unique("node selector", ask("register_node_selectors", NodeSelector)),
        operations=_unique("operation", ask("register_operations", OperationKind)),
        guards=_unique("guard", ask("register_guards", Guard)),
        listeners=_unique("listener", ask("register_listeners", Listener)),
        steps=_in_turn(_unique("step", ask("register_steps", Step), _step_name)),
    )
    try:
        in_order(list(registry.components))
    except TypeError as error:
        raise PluginError(f"The plugins cannot be started: {error}.") from error
    return registry


def _register(plugins: tuple[Plugin, ...]) -> pluggy.PluginManager:
    """All plugins with their hooks, none of which is misspelt."""
    manager = pluggy.PluginManager("pvcd")
    manager.add_hookspecs(hookspecs)
    try:
        for plugin in plugins:
            manager.register(plugin.module, plugin.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        name = next(plugin.name for plugin in plugins if plugin.module is error.plugin)
        reason = " ".join(str(error).split()).rstrip(".")
        raise PluginError(f"Plugin {name!r} has a hook that does not fit: {reason}.") from error
    return manager


def declared_by(plugin: Plugin) -> dict[str, list[str]]:
    """What one plugin declares: kind -> names."""
    core, own = Registry(), collect([plugin])
    return {
        kind.name: [_name_of(one) for one in getattr(own, kind.name) if one not in getattr(core, kind.name)]
        for kind in fields(Registry)
        if kind.name != "plugins" and len(getattr(own, kind.name)) > len(getattr(core, kind.name))
    }


def _name_of(declaration: Any) -> str:
    name: str = declaration.template if isinstance(declaration, type) else declaration.name  # type: ignore[attr-defined]
    return name


class _Collector:
    """Asks the plugins one by one, so that a failing one is named and hides no other."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._manager = manager

    def ask(self, hook: str, kind: type) -> list[tuple[str, Any]]:
        """(plugin, declaration) for all that the plugins return from a hook; of records, the classes."""
        found: list[tuple[str, Any]] = []
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            name = impl.plugin_name
            try:
                declared = list(impl.function())
            except Exception as error:
                raise PluginError(f"Plugin {name!r} failed in {hook}(): {type(error).__name__}: {error}.") from error
            for one in declared:
                if not _fits(one, kind):
                    raise PluginError(f"Plugin {name!r} returned {one!r} from {hook}(), which takes {kind.__name__}.")
                found.append((name, one))
        return sorted(found, key=lambda pair: pair[0])


def _fits(declared: object, kind: type) -> bool:
    if kind is not Record:
        return isinstance(declared, kind)
    return isinstance(declared, type) and issubclass(declared, Record) and bool(declared.template)


def _core(declarations: Iterable[Any]) -> list[tuple[str, Any]]:
    return [(CORE, one) for one in declarations]


def _name(declaration: Any) -> str:
    name: str = declaration.name
    return name


def _record_name(record: type[Record]) -> str:
    return re.sub(r"\{\w+\}", "{}", record.template)


def _step_name(step: Step) -> str:
    return f"{step.kind} {step.name}"


def _in_turn(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(sorted(steps, key=lambda step: (step.kind, step.order, step.name)))


def _route_name(route: Route) -> str:
    return re.sub(r"\{\w+\}", "{}", route.name)


def _unique(kind: str, found: Iterable[tuple[str, Any]], name: Callable[[Any], str] = _name) -> tuple[Any, ...]:
    """The declarations sorted by name, or an error that names both plugins of a clash."""
    by_name: dict[str, tuple[str, Any]] = {}
    for plugin, declaration in found:
        key = name(declaration)
        if key in by_name:
            raise PluginError(f"The {kind} {key!r} is declared by both {by_name[key][0]!r} and {plugin!r}.")
        by_name[key] = (plugin, declaration)
    return tuple(by_name[key][1] for key in sorted(by_name))
