"""Whether a plugin keeps the rules: for its own tests, and for `pvcd plugin check`.

    def test_it_keeps_the_rules() -> None:
        assert conformance.complaints(pvcd_greeter) == []

What needs a cluster is tried in a simulated one; nothing outside is opened, asked or changed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from pydantic import BaseModel

from pvcd.plugin.kinds import name_of
from pvcd.plugin.loading import Plugin, PluginError, check_version, load
from pvcd.plugin.registry import Registry, gather
from pvcd.settings import PluginsSection, Section
from pvcd.testing import trial

NAMES = {
    "sections": r"[a-z][a-z0-9_]*",
    "records": r"(/([a-z0-9-]+|\{\w+\}))+",
    "components": r"[a-z0-9-]+",
    "routes": r"[A-Z]+ /api/v1(/([a-z0-9.-]+|\{\w+\}))+",
    "node_commands": r"[a-z0-9-]+",
    "node_facts": r"[a-z0-9_-]+",
    "node_selectors": r"[a-z0-9_-]+",
    "operations": r"[a-z0-9]+(-[a-z0-9]+)*",
    "guards": r"[a-z0-9-]+",
    "listeners": r"[a-z0-9-]+",
    "steps": r"[a-z0-9_-]+",
    "template_filters": r"[a-z0-9_]+",
    "health_checks": r"[a-z0-9-]+",
    "cli_commands": r"[a-z0-9-]+",
}


@dataclass(frozen=True)
class Subject:
    """A plugin, what it declares, and the same a second time."""

    plugin: Plugin
    registry: Registry
    again: Registry

    @property
    def code(self) -> Path:
        """Its file, or the folder of its package."""
        file = Path(inspect.getfile(self.plugin.module)).resolve()
        return file.parent if file.name == "__init__.py" else file

    def own(self, field: str) -> list[Any]:
        """What it declares of one kind."""
        names = self.registry.names[self.plugin.name].get(field, ())
        return [one for one in getattr(self.registry, field) if name_of(one) in names]


def complaints(module: ModuleType) -> list[str]:
    """What a plugin does wrong, a sentence each."""
    results = examine(Plugin(module.__name__, module, "given to the test", required=False))
    return [f"{check}: {complaint}" for check, found in results for complaint in found]


def examine(plugin: Plugin) -> Iterator[tuple[str, list[str]]]:
    """Each check's name with what it complains of; without the first two the others are not possible."""
    try:
        check_version(plugin.name, plugin.module)
    except PluginError as error:
        yield "plugin API", [str(error)]
        return
    yield "plugin API", []
    built_in = (each for each in load(PluginsSection()) if isinstance(each, Plugin) and each.required)
    others = [each for each in built_in if each.module is not plugin.module]
    registry, again = gather([*others, plugin]), gather([*others, plugin])
    reasons = [refused.reason for refused in registry.refused]
    yield "declarations", reasons
    if reasons:
        return
    subject = Subject(plugin, registry, again)
    for name, check in CHECKS.items():
        yield name, sorted(set(check(subject)))
    tried = trial.run(plugin.module, subject.code, subject.own("routes"), subject.own("components"))
    yield from ((name, sorted(set(found))) for name, found in tried.items())


def check_hooks(subject: Subject) -> Iterator[str]:
    """Hooks return the same whenever they are called."""
    once, twice = (each.names.get(subject.plugin.name) for each in (subject.registry, subject.again))
    if once != twice:
        yield f"its hooks return other names when they are called again: {once}, then {twice}."


def check_names(subject: Subject) -> Iterator[str]:
    """Names are of the form that users know."""
    for field, pattern in NAMES.items():
        for one in subject.own(field):
            if not re.fullmatch(pattern, name_of(one)):
                yield f"the name {name_of(one)!r} among its {field} is not of the form {pattern}."
    for route in subject.own("routes"):
        for operation in route.operations:
            if not re.fullmatch(NAMES["operations"], operation):
                yield f"the operation {operation!r} of {route.name} is not of the form {NAMES['operations']}."


def check_texts(subject: Subject) -> Iterator[str]:
    """All that a user may meet says what it is for."""
    if not inspect.getdoc(subject.plugin.module):
        yield "the module has no docstring."
    for what, text in _texts(subject):
        if not (text or "").strip():
            yield f"{what} says nothing of what it is for."


def _texts(subject: Subject) -> Iterator[tuple[str, str | None]]:
    for route in subject.own("routes"):
        yield f"the route {route.name}", route.doc
        yield from ((f"the argument {each.name!r} of {route.name}", each.doc) for each in route.parameters)
    for section in subject.own("sections"):
        yield from _texts_of_settings(section.model, f"pvc.{section.name}")
    for record in subject.own("records"):
        yield f"the record {record.template}", record.__doc__
    for field in ("node_selectors", "template_filters", "health_checks"):
        yield from ((f"{one.name!r} among its {field}", one.doc) for one in subject.own(field))
    for operation in subject.own("operations"):
        yield f"the operation {operation.name!r}", operation.doc
        for name, schema in operation.arguments.items():
            yield f"the argument {name!r} of the operation {operation.name!r}", schema.get("description")
    for command in subject.own("cli_commands"):
        yield f"pvcd {command.name}", command.help
    for step in subject.own("steps"):
        yield f"the step {step.name!r}", step.title


def _texts_of_settings(model: type[BaseModel], path: str) -> Iterator[tuple[str, str | None]]:
    yield f"the section {path}", model.__doc__
    for name, field in model.model_fields.items():
        inner = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        sections = [each for each in inner if issubclass(each, Section)]
        for section in sections:
            yield from _texts_of_settings(section, f"{path}.{name}")
        if not sections:
            yield f"the setting {path}.{name}", field.description


CHECKS: dict[str, Callable[[Subject], Iterable[str]]] = {
    "hooks": check_hooks,
    "names": check_names,
    "texts": check_texts,
}
