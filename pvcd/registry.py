"""Collects the declarations of the plugins, refuses those that clash, and freezes the result."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import click
import pluggy

from pvcd import cli, commands, documents, health, hookspecs, logins, sitehooks
from pvcd.context import Component, in_order
from pvcd.general import routes as general_routes
from pvcd.handlers import Answer, Handler, Handlers
from pvcd.health import HealthCheck
from pvcd.http.routes import Route, Routes
from pvcd.lease import Primary
from pvcd.loading import Plugin, PluginError, RefusedPlugin, in_time, load
from pvcd.nodes import NodeFact, NodeSelector
from pvcd.operations import Guard, Listener, OperationKind
from pvcd.records import Record
from pvcd.schema import Schema
from pvcd.sessions import Session
from pvcd.settings import Section, Settings, SettingsError, SettingsSection, build, plugins_section
from pvcd.tasks import Step, logs, queue
from pvcd.tasks.records import RECORDS as TASK_RECORDS
from pvcd.tasks.steps import operation_of
from pvcd.templates import TemplateFilter

__all__ = [
    "Plugin",
    "PluginError",
    "RefusedPlugin",
    "Registry",
    "SettingsError",
    "check",
    "collect",
    "gather",
    "load",
    "plugins_section",
    "shown",
    "start",
]

CORE = "the core"
CORE_RECORDS: tuple[type[Record], ...] = (
    *(Schema, Session, Primary, logins.Login),
    *commands.COMMAND_RECORDS,
    *TASK_RECORDS,
)
CORE_HANDLERS = (*commands.CORE_HANDLERS, *logins.handlers.handlers)
CORE_ROUTES = (*general_routes, *documents.routes, *health.routes)
CORE_COMPONENTS: tuple[Component[Any], ...] = (
    documents.COMPONENT,
    logs.COMPONENT,
    queue.COMPONENT,
    sitehooks.COMPONENT,
)
RESERVED: Mapping[str, Iterable[Any]] = {
    "sections": [SettingsSection(name, Section) for name in Settings.model_fields],
    "cli_commands": cli.reserved(),
}
"""Names of the core that no plugin can have, of kinds that the core does not declare itself."""


@dataclass(frozen=True)
class Registry:
    """What all plugins declared, each kind sorted by name."""

    plugins: tuple[Plugin, ...] = ()
    refused: tuple[RefusedPlugin, ...] = ()
    """Of which nothing is used."""
    ignored: tuple[str, ...] = ()
    """Sections of the settings that nobody declared, and that may be those of a refused plugin."""
    names: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """What each plugin declared: plugin -> field of this class -> names."""
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
    template_filters: tuple[TemplateFilter, ...] = ()
    health_checks: tuple[HealthCheck, ...] = health.CHECKS
    cli_commands: tuple[click.Command, ...] = ()

    @cached_property
    def known_operations(self) -> Mapping[str, OperationKind]:
        """All operations, by name: those of the routes, those of tasks, and what daemons do by themselves."""
        kinds = [kind for route in self.routes for kind in route.kinds]
        kinds += [operation_of(kind) for kind in dict.fromkeys(step.kind for step in self.steps)]
        return {kind.name: kind for kind in sorted([*kinds, *self.operations], key=_name)}

    def owner(self, field: str, name: str) -> str:
        """Who declared something: `plugin 'vm'`, or the core."""
        owners = (plugin for plugin, declared in self.names.items() if name in declared.get(field, ()))
        return next((f"plugin {plugin!r}" for plugin in owners), CORE)

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
    """What the plugins declare that can be used; one that cannot is left out whole.

    Of two that declare the same, the core and required plugins keep it, else the one whose name comes first.
    """
    found = tuple(found)
    registry = _gather(found)
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
    declared: Declared = {kind.field: _of_the_core(kind) for kind in KINDS}
    loaded = (plugin for plugin in found if isinstance(plugin, Plugin))
    for plugin in sorted(loaded, key=lambda plugin: (not plugin.required, plugin.name)):
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
        plugins=tuple(sorted(plugins, key=_name)),
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
        if self.field in RESERVED:
            found = {key: one for key, one in found.items() if one[0] != CORE}
        return tuple(found[key][1] for key in sorted(found))


KINDS = (
    Kind("sections", "settings section", "register_settings", SettingsSection),
    Kind("records", "record", "register_records", Record, key=lambda record: _without_fields(record.template)),
    Kind("components", "component", "register_components", Component),
    Kind("routes", "route", "register_routes", Routes, iter, key=lambda route: _without_fields(route.name)),
    Kind("handlers", "handler", "register_handlers", Handlers, lambda table: table.handlers),
    Kind("answers", "command", "register_handlers", Handlers, lambda table: table.answers),
    Kind("node_facts", "node fact", "register_node_facts", NodeFact),
    Kind("node_selectors", "node selector", "register_node_selectors", NodeSelector),
    Kind("operations", "operation", "register_operations", OperationKind),
    Kind("guards", "guard", "register_guards", Guard),
    Kind("listeners", "listener", "register_listeners", Listener),
    Kind("steps", "step", "register_steps", Step, key=lambda step: f"{step.kind} {step.name}"),
    Kind("template_filters", "template filter", "register_template_filters", TemplateFilter),
    Kind("health_checks", "health check", "register_health_checks", HealthCheck),
    Kind("cli_commands", "subcommand", "register_commands", click.Command),
)


def _of_the_core(kind: Kind) -> Found:
    declared = RESERVED.get(kind.field, getattr(Registry, kind.field))
    return {kind.key(one): (CORE, one) for one in declared}


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
