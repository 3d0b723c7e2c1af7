"""pvcd: a cluster of hypervisors behind one HTTP API. These are the names that plugins may use."""

__version__ = "0.1.0"

from pvcd import tasks
from pvcd.context import Component, ComponentKey, Context, Role
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
from pvcd.handlers import Again, Handlers
from pvcd.health import Health, HealthCheck
from pvcd.hookspecs import PLUGIN_API_1, hookimpl
from pvcd.http.parameters import Document, Flag, Path, Value
from pvcd.http.replies import Encoded, Message, Produces, Stream, Text
from pvcd.http.routes import Routes
from pvcd.nodes import NodeFact, NodeSelector
from pvcd.operations import Guard, Listener, Operation, OperationKind
from pvcd.records import Name, Record
from pvcd.sessions import Session
from pvcd.settings import Section, SettingsSection
from pvcd.store import Check, Create, Delete, Put, retried
from pvcd.tasks import Outcome, Run, Step, Task
from pvcd.templates import TemplateFilter
from pvcd.views import View

__all__ = [
    "PLUGIN_API_1",
    "Again",
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
    "Produces",
    "Put",
    "PvcdError",
    "Record",
    "Refused",
    "Role",
    "Routes",
    "Run",
    "Section",
    "Session",
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
