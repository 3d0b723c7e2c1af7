"""Frozen nodes: while a node is frozen it is neither flushed nor made ready, and VMs are rather put elsewhere."""

from __future__ import annotations

from pvcd import PLUGIN_API_1, Guard, Handlers, NodeSelector, Record, Routes, hookimpl

from . import guards, handlers, records, routes, selectors

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_records() -> list[type[Record]]:
    """That a node is frozen, and that it knows."""
    return [records.Freeze, records.FreezeReport]


@hookimpl
def register_routes() -> list[Routes]:
    """Freeze, thaw, and see what is frozen."""
    return [routes.routes]


@hookimpl
def register_handlers() -> list[Handlers]:
    """A node says that it knows."""
    return [handlers.handlers]


@hookimpl
def register_node_selectors() -> list[NodeSelector]:
    """thawed"""
    return [selectors.THAWED]


@hookimpl
def register_guards() -> list[Guard]:
    """A frozen node stays as it is."""
    return [guards.FROZEN]
