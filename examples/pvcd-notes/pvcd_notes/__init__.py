"""Notes for nodes: each node shows its note and says so. This example uses every hook."""

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
    """A note, and that it was read."""
    return [records.Note, records.NoteReport]


@hookimpl
def register_components() -> list[Component[board.Board]]:
    """The door to what a node shows."""
    return [board.COMPONENT]


@hookimpl
def register_routes() -> list[Routes]:
    """Write, show and erase notes."""
    return [routes.routes]


@hookimpl
def register_handlers() -> list[Handlers]:
    """A node reads its note, and shows it."""
    return [handlers.handlers]


@hookimpl
def register_node_facts() -> list[NodeFact]:
    """What a node shows."""
    return [facts.SHOWN]


@hookimpl
def register_operations() -> list[OperationKind]:
    """A node reads its note: the site may have hooks for that."""
    return [handlers.READ]


@hookimpl
def register_guards() -> list[Guard]:
    """A node that is held stays as it is."""
    return [guards.HELD]


@hookimpl
def register_listeners() -> list[Listener]:
    """A node that is ready needs no note."""
    return [listeners.READY]


@hookimpl
def register_steps() -> list[Step]:
    """How a note is written for all nodes."""
    return [steps.WRITE]


@hookimpl
def register_node_selectors() -> list[NodeSelector]:
    """A node without a note."""
    return [selectors.WITHOUT_NOTE]


@hookimpl
def register_template_filters() -> list[TemplateFilter]:
    """A note as a comment in userdata."""
    return [TemplateFilter("notes_comment", "as a comment of as many lines", filters.comment)]


@hookimpl
def register_health_checks() -> list[HealthCheck]:
    """Notes that were not read."""
    return [health.UNREAD]


@hookimpl
def register_commands() -> list[click.Command]:
    """pvcd notes"""
    return [cli.command]
