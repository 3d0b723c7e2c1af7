"""Notes for nodes: each node reports that it has read its note."""

from __future__ import annotations

import click

from pvcd import (
    PLUGIN_API_1,
    Handlers,
    HealthCheck,
    NodeSelector,
    Record,
    Routes,
    Step,
    TemplateFilter,
    hookimpl,
)

from . import cli, filters, handlers, health, records, routes, selectors, steps

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_records() -> list[type[Record]]:
    """Notes, and which node has read its note."""
    return [records.Note, records.NoteReport]


@hookimpl
def register_routes() -> list[Routes]:
    """Write, show and erase notes."""
    return [routes.routes]


@hookimpl
def register_handlers() -> list[Handlers]:
    """Read the note of a node."""
    return [handlers.handlers]


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
    return [TemplateFilter("skeleton_comment", "as a comment", filters.comment)]


@hookimpl
def register_health_checks() -> list[HealthCheck]:
    """Warn of unread notes."""
    return [health.UNREAD]


@hookimpl
def register_commands() -> list[click.Command]:
    """pvcd skeleton"""
    return [cli.command]
