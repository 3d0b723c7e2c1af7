"""Collects the declarations of the plugins, refuses those that clash, and freezes the result."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import click
import pluggy

from pvcd.declare.context import Component
from pvcd.declare.handlers import Handler, Handlers, NodeCommandHandler
from pvcd.declare.health import HealthCheck
from pvcd.declare.nodes import NodeFact, NodeSelector
from pvcd.declare.operations import Guard, Listener, OperationKind
from pvcd.declare.templates import TemplateFilter
from pvcd.http.routes import Route, Routes
from pvcd.plugin import core, hookspecs
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
"""Names of pvcd itself that no plugin can have, by the field of the registry."""


@dataclass(frozen=True)
class Registry:
    """What all plugins declared, each kind sorted by name."""

    plugins: tuple[Plugin, ...] = ()
    """Those that a site can choose: all but the core."""
    refused: tuple[RefusedPlugin, ...] = ()
    """Of which nothing is used."""
    ignored: tuple[str, ...] = ()
    """Sections of the settings that nobody declared, and that may be those of a refused plugin."""
    names: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """What each plugin declared: plugin -> field of this class -> names."""
    sections: tuple[SettingsSection, ...] = ()
    records: tuple[type[Record], ...] = ()
    components: tuple[Component[Any], ...] = ()
    routes: tuple[Route, ...] = ()
    handlers: tuple[Handler, ...] = ()
    node_commands: tuple[NodeCommandHandler, ...] = ()
    node_facts: tuple[NodeFact, ...] = ()
    node_selectors: tuple[NodeSelector, ...] = ()
    operations: tuple[OperationKind, ...] = ()
    """What daemons do by themselves."""
    guards: tuple[Guard, ...] = ()
    listeners: tuple[Listener, ...] = ()
    steps: tuple[Step, ...] = ()
    """In the order in which the tasks of each kind run them."""
    template_filters: tuple[TemplateFilter, ...] = ()
    health_checks: tuple[HealthCheck, ...] = ()
    cli_commands: tuple[click.Command, ...] = ()

    @cached_property
    def known_operations(self) -> Mapping[str, OperationKind]:
        """All operations, by name: those of the routes, those of tasks, and what daemons do by themselves."""
        kinds = [kind for route in self.routes for kind in route.kinds]
        kinds += [operation_of(kind) for kind in dict.fromkeys(step.kind for step in self.steps)]
        return {kind.name: kind for kind in sorted([*kinds, *self.operations], key=_name)}

    def of(self, kind: type[T]) -> tuple[T, ...]:
        """All declarations of a kind; of operations also those that routes and tasks are."""
        known: Any = self.known_operations.values() if kind is OperationKind else getattr(self, _kind_of(kind).field)
        return tuple(known)

    def owner(self, declaration: object) -> str:
        """Who declared something: `plugin 'vm'`."""
        holds = declaration if isinstance(declaration, type) else type(declaration)
        field, name = _kind_of(holds).field, shown(declaration)
        owners = (plugin for plugin, declared in self.names.items() if name in declared.get(field, ()))
        return f"plugin {next(owners, CORE)!r}"

    @property
    def complaints(self) -> list[str]:
        """What is left out of what was asked for, a sentence each."""
        sections = (
            f"pvc.{name} is passed over: nobody knows this section, which may be one of a refused plugin."
            for name in self.ignored
        )
        return [*(plugin.reason for plugin in self.refused), *sections]


def start(values: Mapping[str, Any]) -> tuple[Settings, Registry]:
    """From the raw settings to checked settings and all declarations: what every daemon does first."""
    registry = collect(load(plugins_section(values)))
    return check(values, registry), replace(registry, ignored=tuple(_strangers(values, registry)))


def check(values: Mapping[str, Any], registry: Registry) -> Settings:
    """Checked settings with the sections of all plugins; what may be one of a refused plugin is passed over."""
    strangers = _strangers(values, registry)
    return build({name: value for name, value in values.items() if name not in strangers}, registry.sections)


def _strangers(values: Mapping[str, Any], registry: Registry) -> list[str]:
    known = {*Settings.model_fields, *(section.name for section in registry.sections)}
    sections = [name for name, value in values.items() if isinstance(value, dict) and name not in known]
    return sections if registry.refused else []


def collect(found: Iterable[Plugin | RefusedPlugin]) -> Registry:
    """What all plugins declare. Raises `PluginError` if one is refused that is required."""
    registry = gather(found)
    missing = [plugin.reason for plugin in registry.refused if plugin.required]
    if missing:
        raise PluginError("\n".join(missing))
    return registry


def gather(found: Iterable[Plugin | RefusedPlugin]) -> Registry:
    """What the core and the plugins declare that can be used; one that cannot is left out whole.

    Of two that declare the same, the core and required plugins keep it, else the one whose name comes first.
    """
    found = tuple(found)
    registry = _gather((Plugin(CORE, core, "pvcd itself"), *found))
    for plugin in registry.plugins:
        if misfit := _misfit(registry, plugin):
            reason = f"Plugin {plugin.name!r} {misfit}."
            return gather([plugin.refused(reason), *(each for each in found if each is not plugin)])
    return registry


def _misfit(registry: Registry, plugin: Plugin) -> str | None:
    """What of a plugin does not go with all that is declared; of records that are gone there need not be any."""
    own = registry.names[plugin.name]
    for handler in registry.handlers:
        known = handler.gone or handler.record_type in registry.records
        if handler.name in own.get("handlers", ()) and not known:
            return f"has a handler for {handler.record_type!r}, which no plugin declares as a record"
    derived = {name for route in registry.routes for name in route.operations}
    derived |= {operation_of(step.kind).name for step in registry.steps}
    for name in own.get("operations", ()):
        if name in derived:
            return f"declares the operation {name!r}, which is that of a route or a task already"
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
                field: tuple(shown(each[key][1]) for key in sorted(each)) for field, each in own.items()
            }
    return Registry(
        plugins=tuple(sorted((plugin for plugin in plugins if plugin.name != CORE), key=_name)),
        refused=tuple(sorted(refused, key=lambda plugin: (plugin.name, plugin.origin))),
        names=names,
        **{kind.field: kind.in_order(declared[kind.field]) for kind in KINDS},
    )


Found = dict[str, tuple[str, Any]]
"""What is declared of one kind: key -> who declared it, and the declaration."""
Declared = dict[str, Found]
"""By the field of the registry."""


def _name(declaration: Any) -> str:
    name: str = declaration.name
    return name


def shown(declaration: Any) -> str:
    """The name of a declaration as users see it."""
    return declaration.template if isinstance(declaration, type) else _name(declaration)  # type: ignore[attr-defined]


def _without_fields(path: str) -> str:
    """A path in which fields of different names are the same."""
    return re.sub(r"\{\w+\}", "{}", path)


@dataclass(frozen=True)
class Kind:
    """One kind of declarations: where they stand in the registry, and where they come from."""

    field: str
    word: str
    hook: str
    takes: type
    """What the hook returns."""
    holds: type
    """What stands in the registry."""
    parts: Callable[[Any], Iterable[Any]] = lambda one: (one,)
    """The declarations in what the hook returned."""
    key: Callable[[Any], str] = _name
    """What no two of them may share, and what they are sorted by."""

    def in_order(self, found: Found) -> tuple[Any, ...]:
        """The declarations as they stand in the registry."""
        if self.field == "steps":
            return tuple(
                sorted((one for _, one in found.values()), key=lambda step: (step.kind, step.order, step.name))
            )
        return tuple(found[key][1] for key in sorted(found) if found[key][1] is not None)


KINDS = (
    Kind("sections", "settings section", "register_settings", SettingsSection, SettingsSection),
    Kind("records", "record", "register_records", Record, Record, key=lambda record: _without_fields(record.template)),
    Kind("components", "component", "register_components", Component, Component),
    Kind("routes", "route", "register_routes", Routes, Route, iter, key=lambda route: _without_fields(route.name)),
    Kind("handlers", "handler", "register_handlers", Handlers, Handler, lambda table: table.handlers),
    Kind(
        "node_commands",
        "node command",
        "register_handlers",
        Handlers,
        NodeCommandHandler,
        lambda table: table.node_commands,
    ),
    Kind("node_facts", "node fact", "register_node_facts", NodeFact, NodeFact),
    Kind("node_selectors", "node selector", "register_node_selectors", NodeSelector, NodeSelector),
    Kind("operations", "operation", "register_operations", OperationKind, OperationKind),
    Kind("guards", "guard", "register_guards", Guard, Guard),
    Kind("listeners", "listener", "register_listeners", Listener, Listener),
    Kind("steps", "step", "register_steps", Step, Step, key=lambda step: f"{step.kind} {step.name}"),
    Kind("template_filters", "template filter", "register_template_filters", TemplateFilter, TemplateFilter),
    Kind("health_checks", "health check", "register_health_checks", HealthCheck, HealthCheck),
    Kind("cli_commands", "subcommand", "register_commands", click.Command, click.Command),
)


def _kind_of(holds: type) -> Kind:
    return next(kind for kind in KINDS if issubclass(holds, kind.holds))


def _declared_by(plugin: Plugin) -> Declared:
    """Ask one plugin for its declarations."""
    returned: dict[str, list[Any]] = {}
    try:
        in_time(lambda: _ask(plugin, returned), required=plugin.required)
    except TimeoutError as error:
        raise PluginError(f"Plugin {plugin.name!r} was asked for its declarations: {error}.") from error
    declared: Declared = {}
    for kind in KINDS:
        parts = [part for one in returned.get(kind.hook, ()) for part in kind.parts(one)]
        if parts:
            declared[kind.field] = _merged(kind, {}, ((plugin.name, part) for part in parts))
    return declared


def _ask(plugin: Plugin, returned: dict[str, list[Any]]) -> None:
    """Call the hooks of a plugin, none of which is misspelt."""
    manager = pluggy.PluginManager("pvcd")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin.module, plugin.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise PluginError(f"Plugin {plugin.name!r} has a hook that does not fit: {reason}.") from error
    for caller in manager.get_hookcallers(plugin.module) or ():
        hook = caller.name
        try:
            returned[hook] = list(*(impl.function() for impl in caller.get_hookimpls()))
        except (Exception, SystemExit) as error:
            raise PluginError(f"Plugin {plugin.name!r} failed in {hook}(): {type(error).__name__}: {error}.") from error
        takes = next(kind.takes for kind in KINDS if kind.hook == hook)
        for one in returned[hook]:
            if not _fits(one, takes):
                raise PluginError(
                    f"Plugin {plugin.name!r} returned {one!r} from {hook}(), which takes {takes.__name__}."
                )


def _fits(declared: object, kind: type) -> bool:
    if kind is not Record:
        return isinstance(declared, kind)
    return isinstance(declared, type) and issubclass(declared, Record) and bool(declared.template)


def _joined(declared: Declared, own: Declared) -> Declared:
    """All declarations with those of one more plugin; raises `PluginError` if they do not go together."""
    joined = {kind.field: _merged(kind, declared[kind.field], own.get(kind.field, {}).values()) for kind in KINDS}
    try:
        in_order([component for _, component in joined["components"].values()])
    except TypeError as error:
        raise PluginError(f"The plugins cannot be started: {error}.") from error
    return joined


def _merged(kind: Kind, found: Found, more: Iterable[tuple[str, Any]]) -> Found:
    """What is found of a kind with more of it, or an error that names both plugins of a clash."""
    merged = dict(found)
    for plugin, declaration in more:
        key = kind.key(declaration)
        if key in merged:
            raise PluginError(f"The {kind.word} {key!r} is declared by both {merged[key][0]!r} and {plugin!r}.")
        merged[key] = (plugin, declaration)
    return merged


def in_order(components: list[Component[Any]]) -> list[Component[Any]]:
    """Sorted so that each comes after what it needs."""
    waiting = {component.key: component for component in components}
    ordered: list[Component[Any]] = []
    while waiting:
        free = [c for c in waiting.values() if not any(need in waiting for need in c.needs)]
        if not free:
            raise TypeError(f"these components need each other: {', '.join(sorted(key.name for key in waiting))}")
        for component in free:
            ordered.append(waiting.pop(component.key))
    return ordered
