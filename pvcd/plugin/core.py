"""The core's own records, components, routes, handlers and health checks: a plugin like any other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pvcd import sitehooks
from pvcd.cluster import node_commands, sweeper
from pvcd.cluster.lease import Primary
from pvcd.cluster.presence import Presence
from pvcd.cluster.schema import Schema
from pvcd.declare.context import Component
from pvcd.declare.handlers import Handlers
from pvcd.declare.health import HealthCheck
from pvcd.http import auth_routes, document_routes, health_routes, logins
from pvcd.http.routes import Routes
from pvcd.plugin.hookspecs import PLUGIN_API_1, hookimpl
from pvcd.records import Record
from pvcd.tasks import components
from pvcd.tasks.records import Claim, Task, TaskSecrets, TaskSubject

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_records() -> Iterable[type[Record]]:
    """Schema, presence, lease, node commands, logins and tasks."""
    return [
        *(Schema, Presence, Primary, logins.Login),
        *(node_commands.NodeCommand, node_commands.NodeCommandResult),
        *(Task, TaskSecrets, Claim, TaskSubject),
    ]


@hookimpl
def register_components() -> Iterable[Component[Any]]:
    """The API document, the logs and the queue of tasks, the site hooks, and the sweeper of the primary."""
    return [document_routes.COMPONENT, *components.COMPONENTS, sitehooks.COMPONENT, sweeper.COMPONENT]


@hookimpl
def register_routes() -> Iterable[Routes]:
    """The general endpoints."""
    return [auth_routes.routes, document_routes.routes, health_routes.routes]


@hookimpl
def register_handlers() -> Iterable[Handlers]:
    """Answers to node commands, and the removal of old logins."""
    return [node_commands.node_handlers, node_commands.primary_handlers, logins.handlers]


@hookimpl
def register_health_checks() -> Iterable[HealthCheck]:
    """The state of the plugins and of ZooKeeper."""
    return health_routes.CHECKS
