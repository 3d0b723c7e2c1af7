"""Frozen nodes: a frozen node is neither flushed nor made ready, and VMs are placed elsewhere if possible."""

from __future__ import annotations

from pvcd import PLUGIN_API_1, Guard, Handlers, Listener, NodeSelector, Record, Routes, hookimpl

from . import guards, handlers, listeners, records, routes, selectors

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_records() -> list[type[Record]]:
    """Frozen nodes, and what each node knows of it."""
    return [records.Freeze, records.FreezeReport]


@hookimpl
def register_routes() -> list[Routes]:
    """Freeze, thaw, and list frozen nodes."""
    return [routes.routes]


@hookimpl
def register_handlers() -> list[Handlers]:
    """Report on the node that it is frozen."""
    return [handlers.handlers]


@hookimpl
def register_node_selectors() -> list[NodeSelector]:
    """thawed"""
    return [selectors.THAWED]


@hookimpl
def register_guards() -> list[Guard]:
    """Refuse changes of a frozen node."""
    return [guards.FROZEN]


@hookimpl
def register_listeners() -> list[Listener]:
    """Count the operations on nodes."""
    return [listeners.COUNTED]
