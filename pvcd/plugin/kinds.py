"""The kinds of declarations: which hook returns them, their place in the registry, and what makes one unique."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import click

from pvcd.declare.context import Component
from pvcd.declare.handlers import Handler, Handlers, NodeCommandHandler
from pvcd.declare.health import HealthCheck
from pvcd.declare.nodes import NodeFact, NodeSelector
from pvcd.declare.operations import Guard, Listener, OperationKind
from pvcd.declare.templates import TemplateFilter
from pvcd.http.routes import Route, Routes
from pvcd.records import Record
from pvcd.settings import SettingsSection
from pvcd.tasks import Step

Found = dict[str, tuple[str, Any]]
"""The declarations of one kind: key -> the plugin that declares it, and the declaration."""


def name_of(declaration: Any) -> str:
    """Return the name of a declaration as users see it."""
    name: str = declaration.template if isinstance(declaration, type) else declaration.name  # type: ignore[attr-defined]
    return name


def _without_fields(path: str) -> str:
    """Return a path in which fields of different names are the same."""
    return re.sub(r"\{\w+\}", "{}", path)


@dataclass(frozen=True)
class Kind:
    """One kind of declarations."""

    field: str
    """The field of the registry that holds them."""
    word: str
    hook: str
    takes: type
    """The type that the hook returns."""
    holds: type
    """The type that the registry holds."""
    parts: Callable[[Any], Iterable[Any]] = lambda one: (one,)
    """Returns the declarations in one thing that the hook returned."""
    key: Callable[[Any], str] = name_of
    """Returns the key that is unique among declarations of the kind and sorts them."""
    order: Callable[[Any], Any] | None = None
    """Returns the key that sorts them in the registry, if it is another one."""

    def fits(self, declared: object) -> bool:
        """Return whether the hook may return this."""
        if self.takes is not Record:
            return isinstance(declared, self.takes)
        return isinstance(declared, type) and issubclass(declared, Record) and bool(declared.template)

    def in_order(self, found: Found) -> tuple[Any, ...]:
        """Return the declarations as the registry holds them."""
        declarations = [found[key][1] for key in sorted(found) if found[key][1] is not None]
        return tuple(sorted(declarations, key=self.order) if self.order else declarations)


KINDS = (
    Kind("sections", "settings section", "register_settings", SettingsSection, SettingsSection),
    Kind("records", "record", "register_records", Record, Record, key=lambda record: _without_fields(record.template)),
    Kind("components", "component", "register_components", Component, Component),
    Kind("routes", "route", "register_routes", Routes, Route, iter, key=lambda route: _without_fields(route.name)),
    Kind("handlers", "handler", "register_handlers", Handlers, Handler, lambda table: table.handlers),
    Kind("node_commands", "node command", "register_handlers", Handlers, NodeCommandHandler, lambda t: t.node_commands),
    Kind("node_facts", "node fact", "register_node_facts", NodeFact, NodeFact),
    Kind("node_selectors", "node selector", "register_node_selectors", NodeSelector, NodeSelector),
    Kind("operations", "operation", "register_operations", OperationKind, OperationKind),
    Kind("guards", "guard", "register_guards", Guard, Guard),
    Kind("listeners", "listener", "register_listeners", Listener, Listener),
    Kind(
        *("steps", "step", "register_steps", Step, Step),
        key=lambda step: f"{step.kind} {step.name}",
        order=lambda step: (step.kind, step.order, step.name),
    ),
    Kind("template_filters", "template filter", "register_template_filters", TemplateFilter, TemplateFilter),
    Kind("health_checks", "health check", "register_health_checks", HealthCheck, HealthCheck),
    Kind("cli_commands", "subcommand", "register_commands", click.Command, click.Command),
)


def kind_of(holds: type) -> Kind:
    """Return the kind of the declarations of a type."""
    return next(kind for kind in KINDS if issubclass(holds, kind.holds))
