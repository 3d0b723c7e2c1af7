"""The language of the code: docs/glossary.md, as far as a machine can read it."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    file
    for folder in ("pvcd", "plugins")
    for file in (ROOT / folder).rglob("*.py")
    if not {"examples", "skeleton"} & set(file.parts)
)
BANNED = re.compile(
    r"(?i)(?<!user )(?<!')\b(?:nobody|somebody|anybody|whoever|whomever|shall|whilst|it is that of)\b"
    r"|, for (?:it|they|he|this|there|no|nothing)\b"
    r"|\b(?:behaviour|colour|favour|neighbour|licence)s?\b|\b(?:organi|recogni|initiali|seriali|normali|authori)s(?:e|ing)"
)
"""Words that an operator reads twice, `for` as a conjunction, and British spelling; the user nobody is one of Unix."""
OPENINGS = re.compile(r"What |Whether ")
"""A docstring begins with a verb or a noun: `Return whether ...`."""
CANNOT = re.compile(
    r"^Cannot |^\{cannot\} "  # also as the variable of several sentences
    r"|^Authentication required$"  # as the manual has it
    r"|^There (?:is|are) no "  # as NotFound says it
    r"|\S+ (?:did not answer|did not finish|failed|refused|wrote more|was ended|was killed|lost)\b"  # of things outside
)
WRONG_VALUE = re.compile(
    r"\bmust\b|\bcannot (?:be|contain)\b|\brequires?\b|^There is no |\b(?:is|are) missing\b|^Cannot "
)
TREE = {
    "Refused": CANNOT,
    "Failed": CANNOT,
    "Conflict": CANNOT,
    "Locked": CANNOT,
    "TimedOut": CANNOT,
    "Invalid": WRONG_VALUE,
}
"""Classes of errors and the form of their sentences; their subclasses are found in the code."""
SPEAKERS = {"Message", "Health", "debug", "info", "warning", "error", "exception", "echo"}


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


@cache
def forms() -> dict[str, re.Pattern[str]]:
    """Every class of errors whose first argument is its sentence, and the form of that."""
    found = dict(TREE)
    classes = [node for file in FILES for node in ast.walk(parsed(file)) if isinstance(node, ast.ClassDef)]
    while True:
        more = {
            each.name: found[base.id]
            for each in classes
            for base in each.bases
            if isinstance(base, ast.Name) and base.id in found and each.name not in found and not _builds(each)
        }
        if not more:
            return found
        found |= more


def _builds(node: ast.ClassDef) -> bool:
    return any(isinstance(each, ast.FunctionDef) and each.name == "__init__" for each in node.body)


def texts(node: ast.expr) -> Iterator[str]:
    """Yield the texts that an expression may be, with {} for each value."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=values):
            yield "".join(next(texts(each), "{}") for each in values)
        case ast.FormattedValue(value=ast.Name(id="cannot")):
            yield "{cannot}"
        case ast.IfExp(body=body, orelse=orelse):
            yield from texts(body)
            yield from texts(orelse)


def name_of(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def comments(file: Path) -> Iterator[tuple[int, str]]:
    with tokenize.open(file) as lines:
        for token in tokenize.generate_tokens(lines.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def faults(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that say something otherwise than docs/glossary.md."""
    yield from ((line, text) for line, text in comments(file) if BANNED.search(text))
    for node in ast.walk(parsed(file)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                if BANNED.search(text) or OPENINGS.match(text):
                    yield node.lineno, text
            case ast.Call(args=[first, *_]) if name_of(node) in forms() or name_of(node) in SPEAKERS:
                form = forms().get(name_of(node))
                for text in texts(first):
                    if BANNED.search(text) or (form and text != "{}" and not form.search(text)):
                        yield node.lineno, text


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_speaks_the_language_of_the_glossary(file: Path) -> None:
    assert [f"{file.relative_to(ROOT)}:{line}: {text}" for line, text in sorted(faults(file))] == []


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("raise Conflict(f'Cannot remove {name!r}: in use.')", True),
        ("raise Conflict(f'{name} is in use.')", False),
        ("raise Invalid(f'{name} must be one; got {value}.')", True),
        ("raise Invalid('That will not do.')", False),
        ("raise ProgramFailed(f'{name} failed: {line}')", True),
        ("raise Conflict(sentence)", True),
        ("raise Conflict(f'{cannot} it is running.')", True),
        ("log.warning('nobody answers')", False),
        ("log.warning('runs as the user nobody')", True),
        ("def f():\n    'Whether it is.'", False),
        ("def f():\n    'Return whether it is.'", True),
        ("x = 1  # whoever reads this", False),
    ],
)
def test_the_check_tells_good_from_bad(tmp_path: Path, text: str, good: bool) -> None:
    file = tmp_path / "module.py"
    file.write_text(text)
    assert (not list(faults(file))) == good
