"""Check that a text is a Python script with an `install(**kwargs)`, without running any of it.

Compiling can crash the process that does it, so this is a program of its own: it reads the script, prints the verdict
as JSON, and needs only Python.
"""

from __future__ import annotations

import ast
import json
import resource
import sys
import warnings
from typing import TypedDict

CPU_SECONDS, MEMORY_BYTES = 3, 1024 * 1024 * 1024
MAX_CHARACTERS = 200
MAX_WARNINGS = 10


class Verdict(TypedDict):
    """Why a script cannot be used, or None; and Python's warnings."""

    mistake: str | None
    warnings: list[str]


def look(source: str) -> Verdict:
    """Compile a script, and check the functions that it defines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            compile(source, "<script>", "exec", dont_inherit=True)
            mistake = _look_for_install(ast.parse(source))
        except SyntaxError as error:
            mistake = f"{_line(error.lineno)}{error.msg}"
        except (MemoryError, RecursionError):
            mistake = "it is too large or nested too deeply to be compiled"
        except ValueError as error:  # such as a NUL
            mistake = str(error)
    said = dict.fromkeys(_fit(f"{_line(each.lineno)}{each.message}") for each in caught)
    return Verdict(mistake=mistake and _fit(mistake), warnings=list(said)[:MAX_WARNINGS])


def _look_for_install(module: ast.Module) -> str | None:
    """Return why install() cannot be called, or None. Of several the last one counts."""
    found = [
        node
        for node in module.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "install"
    ]
    if not found:
        return "it has no function install(**kwargs) at its top level"
    install = found[-1]
    if isinstance(install, ast.AsyncFunctionDef):
        return f"{_line(install.lineno)}install() must not be async"
    named = install.args
    if named.kwarg is None or named.vararg or named.posonlyargs or named.args or named.kwonlyargs:
        return f"{_line(install.lineno)}install() must take **kwargs and nothing else"
    return None


def _line(number: int | None) -> str:
    return f"line {number}: " if number else ""


def _fit(text: str) -> str:
    """Return a message of Python, which may quote the script, as part of a sentence."""
    plain = "".join(each if each.isprintable() else " " for each in text)
    return plain if len(plain) <= MAX_CHARACTERS else plain[:MAX_CHARACTERS] + "..."


def main() -> None:
    """Read a script from stdin, and write the verdict to stdout."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    json.dump(look(sys.stdin.buffer.read().decode()), sys.stdout)


if __name__ == "__main__":
    main()
