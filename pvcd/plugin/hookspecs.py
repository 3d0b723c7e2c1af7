"""Everything that a plugin can add. Hooks run once, at start, and return declarations; they do no I/O.

A plugin is a module with `REQUIRES_PLUGIN_API = PLUGIN_API_1` (or another range) and some of these functions, each
marked with `@hookimpl`. The async functions inside the declarations do the work later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
import pluggy

from pvcd.declare.context import Component
from pvcd.declare.handlers import Handlers
from pvcd.declare.health import HealthCheck
from pvcd.declare.nodes import NodeFact, NodeSelector
from pvcd.declare.operations import Guard, Listener, OperationKind
from pvcd.declare.templates import TemplateFilter
from pvcd.http.routes import Routes
from pvcd.records import Record
from pvcd.settings import SettingsSection
from pvcd.tasks import Step

PLUGIN_API = "1.0"
PLUGIN_API_1 = ">=1,<2"
"""The range that a plugin written for this API declares."""

hookspec = pluggy.HookspecMarker("pvcd")
hookimpl = pluggy.HookimplMarker("pvcd")


@hookspec
def register_settings() -> Iterable[SettingsSection]:
    """Sections of pvc-api.yaml that belong to the plugin."""


@hookspec
def register_records() -> Iterable[type[Record]]:
    """What the cluster remembers for the plugin."""


@hookspec
def register_components() -> Iterable[Component[Any]]:
    """What is opened at start and closed at stop, found with `context[KEY]`."""


@hookspec
def register_routes() -> Iterable[Routes]:
    """HTTP endpoints."""


@hookspec
def register_handlers() -> Iterable[Handlers]:
    """What a node, or the primary, does when a record changes or a command asks for it."""


@hookspec
def register_node_facts() -> Iterable[NodeFact]:
    """What each node says of itself beside its keepalive."""


@hookspec
def register_node_selectors() -> Iterable[NodeSelector]:
    """Ways to choose a node for a VM."""


@hookspec
def register_operations() -> Iterable[OperationKind]:
    """What the plugin's handlers and components do by themselves; what its routes do is known from these."""


@hookspec
def register_guards() -> Iterable[Guard]:
    """Asked before an operation; may refuse it."""


@hookspec
def register_listeners() -> Iterable[Listener]:
    """Told after an operation, or asked to do their share of one."""


@hookspec
def register_steps() -> Iterable[Step]:
    """What tasks are made of: each step has its kind of task and its place in the order."""


@hookspec
def register_template_filters() -> Iterable[TemplateFilter]:
    """Functions for the templates of userdata."""


@hookspec
def register_health_checks() -> Iterable[HealthCheck]:
    """Looks at the cluster that tell how it is."""


@hookspec
def register_commands() -> Iterable[click.Command]:
    """Subcommands of `pvcd`; those of pvcd itself cannot be replaced."""
