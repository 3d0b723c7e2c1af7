"""pvcd: a cluster of hypervisors behind one HTTP API. These are the names that plugins may use."""

from importlib.metadata import version

from pvcd import programs, tasks
from pvcd.clock import Clock, SystemClock
from pvcd.cluster.lease import Primary, assign_primary, primary_of
from pvcd.cluster.presence import PRESENCE, Presence
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
    Locked,
    NotFound,
    PvcdError,
    Refused,
    StoreUnavailable,
    TimedOut,
    did_you_mean,
    wrong_value,
)
from pvcd.http.matching import matcher
from pvcd.http.parameters import Document, Flag, Path, Value
from pvcd.http.replies import Encoded, Message, Produces, Stream, Text
from pvcd.http.routes import Routes
from pvcd.http.views import View
from pvcd.plugin.hookspecs import PLUGIN_API_1, hookimpl
from pvcd.records import NAME_PATTERN, Name, Record
from pvcd.settings import Port, Section, SettingsSection, settings_file
from pvcd.store import Change, Check, Create, Delete, Put, Store, Upsert, retried
from pvcd.store.index import Index
from pvcd.store.locks import KeyedLocks
from pvcd.store.tree import MAX_DOCUMENT_BYTES
from pvcd.tasks import TASK_LOGS, LogLine, Outcome, Run, Step, StepRecord, Task
from pvcd.tasks.records import TaskState

__version__ = version("pvcd")
# fmt: off
__all__ = [
    "MAX_DOCUMENT_BYTES", "NAME_PATTERN", "PLUGIN_API_1", "PRESENCE", "TASK_LOGS", "Change", "Changed", "Check",
    "Clock", "Component", "ComponentKey", "Conflict", "Context", "Create", "Delete", "Document", "Encoded", "Exists",
    "Failed", "Flag", "Guard", "Handlers", "Health", "HealthCheck", "HookFailed", "HookRefused", "Index", "Invalid",
    "KeyedLocks", "Listener", "Locked", "LogLine", "Message", "Name", "NodeFact", "NodeSelector", "NotFound",
    "Operation", "OperationKind", "Outcome", "Path", "Port", "Presence", "Primary", "Produces", "Put", "PvcdError",
    "Record", "Refused", "Requeue", "Role", "Routes", "Run", "Section", "SettingsSection", "Step", "StepRecord",
    "Store", "StoreUnavailable", "Stream", "SystemClock", "Task", "TaskState", "TemplateFilter", "Text", "TimedOut",
    "Upsert", "Value", "View", "assign_primary", "did_you_mean", "hookimpl", "matcher", "primary_of", "programs",
    "retried", "settings_file", "tasks", "wrong_value",
]
# fmt: on
