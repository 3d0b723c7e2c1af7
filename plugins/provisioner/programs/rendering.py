"""Render templates of userdata: a program of its own because a template may loop forever or exhaust memory.

It reads {"text", "values", "sample", "filters", "path"} as JSON and writes {"rendered"} or {"mistake", "line"}. Jinja's
sandbox limits a template to its values; CPU time and memory are limited here.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_RENDERED = 256 * 1024
CPU_SECONDS, MEMORY_BYTES = 2, 512 * 1024 * 1024
MAX_CHARACTERS = 8000
"""Of a mistake. A longer one is not cut, because part of a secret could not be found in it any more."""

_SURROGATE = re.compile(r"[\ud800-\udfff]")

Filters = Mapping[str, Callable[..., Any]]


class Mistake(Exception):
    """Why a template cannot be rendered, and in which line."""

    def __init__(self, mistake: str, line: int | None) -> None:
        super().__init__(mistake)
        self.mistake = mistake if len(mistake) <= MAX_CHARACTERS else "the mistake is too long to be shown"
        self.line = line


class AnyArgument(dict[str, str]):
    """Arguments of any name, with which a template is tried."""

    def __missing__(self, name: str) -> str:
        return "sample"


def render(text: str, values: Mapping[str, Any], filters: Filters, *, sample: bool = False) -> str:
    """Return the rendered text. Raises `Mistake`.

    With `sample` a variable that no VM has is a mistake in every branch, also in one that is not taken.
    """
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters = {**filters, **environment.filters}  # Jinja's own cannot be replaced
    try:
        if sample:
            values = {**values, "arguments": AnyArgument()}
            _refuse_unknown(environment.parse(text), values)
        pieces, size = [], 0
        for piece in environment.from_string(text).generate(values):
            size += len(piece)
            if size > MAX_RENDERED:
                raise Mistake(f"it becomes larger than {MAX_RENDERED // 1024} KiB", None)
            pieces.append(piece)
    except Mistake:
        raise
    except TemplateSyntaxError as error:
        raise Mistake(error.message or "syntax error", error.lineno) from None
    except MemoryError:
        raise Mistake("it takes too much memory", None) from None
    except RecursionError as error:
        raise Mistake("it is nested too deeply", _line(error)) from None
    except TemplateError as error:  # something is undefined, or not allowed
        raise Mistake(error.message or "it cannot be rendered", _line(error)) from None
    except Exception as error:  # whatever a filter or an operator raises
        raise Mistake(f"{type(error).__name__}: {error}", _line(error)) from None
    rendered = "".join(pieces)
    if _SURROGATE.search(rendered):
        raise Mistake("it becomes a text that is not valid UTF-8", None)
    return rendered


def _refuse_unknown(tree: nodes.Template, values: Mapping[str, Any]) -> None:
    """Raise `Mistake` for the first name that is neither given nor set by the template."""
    unknown = meta.find_undeclared_variables(tree) - set(values) - _GLOBALS - _asked_for(tree)
    for name in tree.find_all(nodes.Name):
        if name.name in unknown and name.ctx == "load":
            raise Mistake(f"{name.name!r} is undefined", name.lineno)


_GLOBALS = frozenset(ImmutableSandboxedEnvironment().globals)


def _asked_for(tree: nodes.Template) -> set[str]:
    """Return the names that the template tests for being defined, or gives a default."""
    harmless = {nodes.Filter: ("default", "d"), nodes.Test: ("defined", "undefined")}
    asked = [each.node for kind, names in harmless.items() for each in tree.find_all(kind) if each.name in names]
    return {each.name for each in asked if isinstance(each, nodes.Name)}


def _line(error: BaseException) -> int | None:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return lines[-1] if lines else None


def main() -> None:
    """Read a request from stdin, and write the answer to stdout."""
    request = json.load(sys.stdin)
    sys.path.extend(request["path"])
    try:
        filters = {name: _filter(name, *where) for name, where in request["filters"].items()}
        _bound()
        answer = {"rendered": render(request["text"], request["values"], filters, sample=request["sample"])}
    except Mistake as error:
        json.dump({"mistake": error.mistake, "line": error.line}, sys.stdout)
    else:
        json.dump(answer, sys.stdout)


def _bound() -> None:
    """Limit CPU time and memory."""
    seconds = CPU_SECONDS + math.ceil(time.process_time())
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _filter(name: str, module: str, function: str, file: str) -> Any:
    """Import a function from a single file: importing its package, and pvcd, would take too long."""
    try:
        spec = importlib.util.spec_from_file_location(module, file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file} cannot be loaded")
        loaded = sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return getattr(loaded, function)
    except Exception as error:
        raise Mistake(f"the filter {name!r} cannot be imported: {type(error).__name__}: {error}", None) from None


if __name__ == "__main__":
    main()
