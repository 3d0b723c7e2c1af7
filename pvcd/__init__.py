"""pvcd: a cluster of hypervisors behind one HTTP API. These are the names that plugins may use."""

__version__ = "0.1.0"

from pvcd import tasks
from pvcd.cluster.presence import Presence
from pvcd.declare.context import Component, ComponentKey, Context, Role
from pvcd.declare.handlers import Handlers, Requeue
from pvcd.declare.health import Health, HealthCheck
from pvcd.declare.nodes import NodeFact, NodeSelector
from pvcd.declare.operations import Guard, Listener, Operation, OperationKind
from pvcd.declare.templates import TemplateFilter
from pvcd.errors import (
    Changed,
    Conflict,
    Exists,
    Failed,
    HookFailed,
    HookRefused,
    Invalid,
    NotFound,
    PvcdError,
    Refused,
    StoreUnavailable,
    TimedOut,
)
from pvcd.http.parameters import Document, Flag, Path, Value
from pvcd.http.replies import Encoded, Message, Produces, Stream, Text
from pvcd.http.routes import Routes
from pvcd.http.views import View
from pvcd.plugin.hookspecs import PLUGIN_API_1, hookimpl
from pvcd.records import Name, Record
from pvcd.settings import Section, SettingsSection
from pvcd.store import Check, Create, Delete, Put, retried
from pvcd.tasks import Outcome, Run, Step, Task

__all__ = [
    "PLUGIN_API_1",
    "Changed",
    "Check",
    "Component",
    "ComponentKey",
    "Conflict",
    "Context",
    "Create",
    "Delete",
    "Document",
    "Encoded",
    "Exists",
    "Failed",
    "Flag",
    "Guard",
    "Handlers",
    "Health",
    "HealthCheck",
    "HookFailed",
    "HookRefused",
    "Invalid",
    "Listener",
    "Message",
    "Name",
    "NodeFact",
    "NodeSelector",
    "NotFound",
    "Operation",
    "OperationKind",
    "Outcome",
    "Path",
    "Presence",
    "Produces",
    "Put",
    "PvcdError",
    "Record",
    "Refused",
    "Requeue",
    "Role",
    "Routes",
    "Run",
    "Section",
    "SettingsSection",
    "Step",
    "StoreUnavailable",
    "Stream",
    "Task",
    "TemplateFilter",
    "Text",
    "TimedOut",
    "Value",
    "View",
    "hookimpl",
    "retried",
    "tasks",
]
