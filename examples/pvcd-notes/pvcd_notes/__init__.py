"""Notes for nodes: each node shows its note and reports it. This example uses every hook."""

from __future__ import annotations

import click

from pvcd import (
    PLUGIN_API_1,
    Component,
    Guard,
    Handlers,
    HealthCheck,
    Listener,
    NodeFact,
    NodeSelector,
    OperationKind,
    Record,
    Routes,
    SettingsSection,
    Step,
    TemplateFilter,
    hookimpl,
)

from . import (
    board,
    cli,
    facts,
    filters,
    guards,
    handlers,
    health,
    listeners,
    records,
    routes,
    selectors,
    settings,
    steps,
)

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_settings() -> list[SettingsSection]:
    """pvc.notes"""
    return [settings.SECTION]


@hookimpl
def register_records() -> list[type[Record]]:
    """Notes, and which node has read its note."""
    return [records.Note, records.NoteReport]


@hookimpl
def register_components() -> list[Component[board.Board]]:
    """The door to the text that a node shows."""
    return [board.COMPONENT]


@hookimpl
def register_routes() -> list[Routes]:
    """Write, show and erase notes."""
    return [routes.routes]


@hookimpl
def register_handlers() -> list[Handlers]:
    """Read and show the note of a node."""
    return [handlers.handlers]


@hookimpl
def register_node_facts() -> list[NodeFact]:
    """The text that a node shows."""
    return [facts.SHOWN]


@hookimpl
def register_operations() -> list[OperationKind]:
    """A node reads its note; site hooks are notified of it."""
    return [handlers.READ]


@hookimpl
def register_guards() -> list[Guard]:
    """Refuse changes of a held node."""
    return [guards.HELD]


@hookimpl
def register_listeners() -> list[Listener]:
    """Erase the note of a node that becomes ready."""
    return [listeners.READY]


@hookimpl
def register_steps() -> list[Step]:
    """Write a note for all nodes."""
    return [steps.WRITE]


@hookimpl
def register_node_selectors() -> list[NodeSelector]:
    """Prefer nodes without a note."""
    return [selectors.WITHOUT_NOTE]


@hookimpl
def register_template_filters() -> list[TemplateFilter]:
    """Write a text as a comment in userdata."""
    return [TemplateFilter("notes_comment", "as a comment", filters.comment)]


@hookimpl
def register_health_checks() -> list[HealthCheck]:
    """Warn of unread notes."""
    return [health.UNREAD]


@hookimpl
def register_commands() -> list[click.Command]:
    """pvcd notes"""
    return [cli.command]
