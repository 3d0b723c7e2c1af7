"""Registry: the declarations of all plugins, without those that clash or do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import click
import pluggy

from pvcd.declare.context import Component
from pvcd.declare.handlers import Handler, NodeCommandHandler
from pvcd.declare.health import HealthCheck
from pvcd.declare.nodes import NodeFact, NodeSelector
from pvcd.declare.operations import Guard, Listener, OperationKind
from pvcd.declare.templates import TemplateFilter
from pvcd.http.routes import Route
from pvcd.plugin import core, hookspecs
from pvcd.plugin.kinds import KINDS, Found, Kind, kind_of, name_of
from pvcd.plugin.loading import CORE, Plugin, PluginError, RefusedPlugin, in_time, load
from pvcd.records import Record
from pvcd.settings import Settings, SettingsSection, build, plugins_section
from pvcd.tasks import Step
from pvcd.tasks.steps import operation_of

T = TypeVar("T")
RESERVED: Mapping[str, Iterable[str]] = {
    "sections": tuple(Settings.model_fields),
    "cli_commands": ("api", "check", "hooks", "node", "openapi", "plugin", "plugins", "worker"),
}
"""Names of pvcd itself that no plugin can take, by the field of the registry."""
Declared = dict[str, Found]
"""Declarations by the field of the registry."""


@dataclass(frozen=True)
class Registry:
    """The declarations of all plugins, each kind sorted by name."""

    plugins: tuple[Plugin, ...] = ()
    """All that are used, except the core."""
    refused: tuple[RefusedPlugin, ...] = ()
    """Plugins of which nothing is used."""
    ignored: tuple[str, ...] = ()
    """Sections of the settings that no plugin declares, and that may belong to a refused one."""
    names: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """Plugin -> field of this class -> names of its declarations."""
    sections: tuple[SettingsSection, ...] = ()
    records: tuple[type[Record], ...] = ()
    components: tuple[Component[Any], ...] = ()
    routes: tuple[Route, ...] = ()
    handlers: tuple[Handler, ...] = ()
    node_commands: tuple[NodeCommandHandler, ...] = ()
    node_facts: tuple[NodeFact, ...] = ()
    node_selectors: tuple[NodeSelector, ...] = ()
    operations: tuple[OperationKind, ...] = ()
    """Those that daemons do by themselves."""
    guards: tuple[Guard, ...] = ()
    listeners: tuple[Listener, ...] = ()
    steps: tuple[Step, ...] = ()
    """In the order in which the tasks of each kind run them."""
    template_filters: tuple[TemplateFilter, ...] = ()
    health_checks: tuple[HealthCheck, ...] = ()
    cli_commands: tuple[click.Command, ...] = ()

    @cached_property
    def known_operations(self) -> Mapping[str, OperationKind]:
        """All operations by name: those of routes, of tasks, and those that daemons do by themselves."""
        kinds = [kind for route in self.routes for kind in route.kinds]
        kinds += [operation_of(kind) for kind in dict.fromkeys(step.kind for step in self.steps)]
        return {kind.name: kind for kind in sorted([*kinds, *self.operations], key=name_of)}

    def of(self, kind: type[T]) -> tuple[T, ...]:
        """Return all declarations of a kind; of operations also those of routes and tasks."""
        known: Any = self.known_operations.values() if kind is OperationKind else getattr(self, kind_of(kind).field)
        return tuple(known)

    def owner(self, declaration: object) -> str:
        """Return which plugin declared something: `plugin 'vm'`."""
        holds = declaration if isinstance(declaration, type) else type(declaration)
        field, name = kind_of(holds).field, name_of(declaration)
        owners = (plugin for plugin, declared in self.names.items() if name in declared.get(field, ()))
        return f"plugin {next(owners, CORE)!r}"

    @property
    def complaints(self) -> list[str]:
        """A sentence for each plugin and section of the settings that is not used."""
        sections = (
            f"pvc.{name} is ignored: no plugin declares this section; it may belong to a refused plugin."
            for name in self.ignored
        )
        return [*(plugin.reason for plugin in self.refused), *sections]


def start(values: Mapping[str, Any]) -> tuple[Settings, Registry]:
    """Turn the raw settings into checked settings and all declarations, as every daemon does first."""
    registry = collect(load(plugins_section(values)))
    return check(values, registry), replace(registry, ignored=tuple(_undeclared(values, registry)))


def check(values: Mapping[str, Any], registry: Registry) -> Settings:
    """Return checked settings with the sections of all plugins, without those that may belong to a refused plugin."""
    ignored = _undeclared(values, registry)
    return build({name: value for name, value in values.items() if name not in ignored}, registry.sections)


def _undeclared(values: Mapping[str, Any], registry: Registry) -> list[str]:
    known = {*Settings.model_fields, *(section.name for section in registry.sections)}
    sections = [name for name, value in values.items() if isinstance(value, dict) and name not in known]
    return sections if registry.refused else []


def collect(found: Iterable[Plugin | RefusedPlugin]) -> Registry:
    """Return the declarations of all plugins. Raises `PluginError` if a required plugin is refused."""
    registry = gather(found)
    missing = [plugin.reason for plugin in registry.refused if plugin.required]
    if missing:
        raise PluginError("\n".join(missing))
    return registry


def gather(found: Iterable[Plugin | RefusedPlugin]) -> Registry:
    """Return the declarations of the core and of the plugins that can be used; the others are refused as a whole.

    Of two plugins that declare the same, the core and required plugins go first, then the order of their names counts.
    """
    found = tuple(found)
    registry = _gather((Plugin(CORE, core, "pvcd itself"), *found))
    for plugin in registry.plugins:
        if misfit := _misfit(registry, plugin):
            reason = f"Plugin {plugin.name!r} {misfit}."
            return gather([plugin.refused(reason), *(each for each in found if each is not plugin)])
    return registry


def _misfit(registry: Registry, plugin: Plugin) -> str | None:
    """Return why a plugin does not fit all declarations, as the end of a sentence.

    The record of a `gone` handler need not be declared: its plugin may be disabled.
    """
    own = registry.names[plugin.name]
    for handler in registry.handlers:
        known = handler.gone or handler.record_type in registry.records
        if handler.name in own.get("handlers", ()) and not known:
            return f"has a handler for {handler.record_type!r}, which no plugin declares as a record"
    derived = {name for route in registry.routes for name in route.operations}
    derived |= {operation_of(step.kind).name for step in registry.steps}
    for name in own.get("operations", ()):
        if name in derived:
            return f"declares the operation {name!r}, which a route or a task already has"
    return None


def _gather(found: tuple[Plugin | RefusedPlugin, ...]) -> Registry:
    plugins: list[Plugin] = []
    refused = [plugin for plugin in found if isinstance(plugin, RefusedPlugin)]
    names: dict[str, Mapping[str, tuple[str, ...]]] = {}
    declared: Declared = {kind.field: {name: (CORE, None) for name in RESERVED.get(kind.field, ())} for kind in KINDS}
    loaded = (plugin for plugin in found if isinstance(plugin, Plugin))
    for plugin in sorted(loaded, key=lambda plugin: (plugin.name != CORE, not plugin.required, plugin.name)):
        try:
            own = _declared_by(plugin)
            declared = _joined(declared, own)
        except PluginError as error:
            refused.append(plugin.refused(error))
        else:
            plugins.append(plugin)
            names[plugin.name] = {
                field: tuple(name_of(each[key][1]) for key in sorted(each)) for field, each in own.items()
            }
    return Registry(
        plugins=tuple(sorted((plugin for plugin in plugins if plugin.name != CORE), key=name_of)),
        refused=tuple(sorted(refused, key=lambda plugin: (plugin.name, plugin.origin))),
        names=names,
        **{kind.field: kind.in_order(declared[kind.field]) for kind in KINDS},
    )


def _declared_by(plugin: Plugin) -> Declared:
    """Return the declarations of one plugin."""
    returned: dict[str, list[Any]] = {}
    try:
        in_time(lambda: _ask(plugin, returned), required=plugin.required)
    except TimeoutError as error:
        raise PluginError(f"Plugin {plugin.name!r} did not return its declarations: {error}.") from error
    declared: Declared = {}
    for kind in KINDS:
        parts = [part for one in returned.get(kind.hook, ()) for part in kind.parts(one)]
        if parts:
            declared[kind.field] = _merged(kind, {}, ((plugin.name, part) for part in parts))
    return declared


def _ask(plugin: Plugin, returned: dict[str, list[Any]]) -> None:
    """Call the hooks of a plugin, and check what they return; a misspelt hook is refused."""
    manager = pluggy.PluginManager("pvcd")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin.module, plugin.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise PluginError(f"Plugin {plugin.name!r} has an unknown or wrong hook: {reason}.") from error
    for caller in manager.get_hookcallers(plugin.module) or ():
        hook = caller.name
        try:
            returned[hook] = list(*(impl.function() for impl in caller.get_hookimpls()))
        except (Exception, SystemExit) as error:
            raise PluginError(f"Plugin {plugin.name!r} failed in {hook}(): {type(error).__name__}: {error}.") from error
        kind = next(kind for kind in KINDS if kind.hook == hook)
        for one in returned[hook]:
            if not kind.fits(one):
                raise PluginError(
                    f"Plugin {plugin.name!r} returned {one!r} from {hook}(); it must return {kind.takes.__name__}."
                )


def _joined(declared: Declared, own: Declared) -> Declared:
    """Return all declarations with those of one more plugin. Raises `PluginError` if they clash."""
    joined = {kind.field: _merged(kind, declared[kind.field], own.get(kind.field, {}).values()) for kind in KINDS}
    try:
        in_order([component for _, component in joined["components"].values()])
    except TypeError as error:
        raise PluginError(f"Cannot order the components: {error}.") from error
    return joined


def _merged(kind: Kind, found: Found, more: Iterable[tuple[str, Any]]) -> Found:
    """Return the declarations of a kind with more of them. Raises `PluginError` that names both plugins of a clash."""
    merged = dict(found)
    for plugin, declaration in more:
        key = kind.key(declaration)
        if key in merged:
            raise PluginError(f"The {kind.word} {key!r} is declared by both {merged[key][0]!r} and {plugin!r}.")
        merged[key] = (plugin, declaration)
    return merged


def in_order(components: list[Component[Any]]) -> list[Component[Any]]:
    """Return components sorted so that each comes after those that it needs."""
    waiting = {component.key: component for component in components}
    ordered: list[Component[Any]] = []
    while waiting:
        free = [c for c in waiting.values() if not any(need in waiting for need in c.needs)]
        if not free:
            raise TypeError(f"these components need each other: {', '.join(sorted(key.name for key in waiting))}")
        for component in free:
            ordered.append(waiting.pop(component.key))
    return ordered
