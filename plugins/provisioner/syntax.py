"""Whether a text is a Python script with an `install(**kwargs)`, without running any of it.

What Python compiles may end the process that compiles it, so this is a program of its own: it reads the script, prints
what it found as JSON, and needs nothing but Python.
"""

from __future__ import annotations

import ast
import json
import resource
import sys
import warnings
from typing import TypedDict

SECONDS, MEMORY = 3, 1024 * 1024 * 1024
LONGEST = 200
MAX_WARNINGS = 10


class Verdict(TypedDict):
    """Why it is no such script, or None; and what Python warns of."""

    mistake: str | None
    warnings: list[str]


def look(source: str) -> Verdict:
    """Compile a script, and look at the functions that it defines."""
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
    """Why the script's install(), of several the last, cannot be called, or None."""
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
    """A text of Python that may quote the script, as it may stand in a sentence."""
    plain = "".join(each if each.isprintable() else " " for each in text)
    return plain if len(plain) <= LONGEST else plain[:LONGEST] + "..."


def main() -> None:
    """From stdin to stdout."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    json.dump(look(sys.stdin.buffer.read().decode()), sys.stdout)


if __name__ == "__main__":
    main()
