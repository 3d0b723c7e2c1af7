"""The hooks of a plugin: everything that it can add. They run once, at start, do no I/O and return declarations.

A plugin is a module with `REQUIRES_PLUGIN_API = PLUGIN_API_1` (or another range) and some of these functions, each
marked with `@hookimpl`. The async functions in the declarations do the work later.
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
"""The range of versions that a plugin written for this API declares."""

hookspec = pluggy.HookspecMarker("pvcd")
hookimpl = pluggy.HookimplMarker("pvcd")


@hookspec
def register_settings() -> Iterable[SettingsSection]:
    """Sections of pvc-api.yaml that belong to the plugin."""


@hookspec
def register_records() -> Iterable[type[Record]]:
    """Types of records that the plugin keeps in the store."""


@hookspec
def register_components() -> Iterable[Component[Any]]:
    """Things that are opened at start and closed at stop, found with `context[KEY]`."""


@hookspec
def register_routes() -> Iterable[Routes]:
    """HTTP endpoints."""


@hookspec
def register_handlers() -> Iterable[Handlers]:
    """Functions that a node, or the primary, runs when a record changes or a node command asks for it."""


@hookspec
def register_node_facts() -> Iterable[NodeFact]:
    """Values that each node publishes with its keepalive."""


@hookspec
def register_node_selectors() -> Iterable[NodeSelector]:
    """Ways to choose a node for a VM."""


@hookspec
def register_operations() -> Iterable[OperationKind]:
    """Acts of the plugin's handlers and components; those of its routes are derived from the routes."""


@hookspec
def register_guards() -> Iterable[Guard]:
    """Checks before an operation, which may refuse it."""


@hookspec
def register_listeners() -> Iterable[Listener]:
    """Functions called after an operation, or to do their part of one."""


@hookspec
def register_steps() -> Iterable[Step]:
    """Parts of tasks: each step names its kind of task and its place in the order."""


@hookspec
def register_template_filters() -> Iterable[TemplateFilter]:
    """Functions for the templates of userdata."""


@hookspec
def register_health_checks() -> Iterable[HealthCheck]:
    """Checks of the state of the cluster."""


@hookspec
def register_commands() -> Iterable[click.Command]:
    """Subcommands of `pvcd`; those of the core cannot be replaced."""
