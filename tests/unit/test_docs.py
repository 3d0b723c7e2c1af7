"""The documentation says what the code says: every endpoint, setting, error, hook and name, and nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import shlex
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import click
import pytest
from aiohttp import web
from markdown_it import MarkdownIt

import pvcd
from pvcd import errors, store, testing
from pvcd.declare import context
from pvcd.http import middleware
from pvcd.kit import project
from pvcd.plugin import hookspecs, kinds, loading, registry
from pvcd.settings import PluginsSection, read_file

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md")])
EXAMPLE = ROOT / "pvc-api.yaml"
PACKAGES = [pvcd, *(plugin.module for plugin in loading.load(PluginsSection()))]
"""The core and the plugins that are there."""
SOURCES = sorted(
    file
    for package in PACKAGES
    for file in Path(package.__path__[0]).rglob("*.py")
    if "skeleton" not in file.parts  # which is a plugin of somebody else
)


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()


@cache
def started() -> tuple[Any, registry.Registry]:
    return registry.start(read_file(EXAMPLE))


# Endpoints


def test_every_endpoint_has_its_place_in_the_api_manual() -> None:
    placed = re.findall(r"^:::\{endpoint\} (.+)$", page("api"), re.MULTILINE)
    assert sorted(placed) == sorted(route.name for route in started()[1].routes)


def test_the_codes_that_the_api_manual_names_exist() -> None:
    named = set()
    for said in re.findall(r"[Rr]efused\s+with\s[^.:]+", page("api")):
        named.update(re.findall(r"`([a-z-]+)`", said))
    assert len(named) > 10
    assert named - set(documented_codes()) == set()


# Settings


def sections(model: Any, path: str = "pvc") -> Iterator[tuple[str, Any]]:
    yield path, model
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, pvcd.Section):
                yield from sections(kind, f"{path}.{name}")


def every_section() -> dict[str, Any]:
    return dict(sections(type(started()[0])))


def test_every_setting_is_described() -> None:
    described = {
        f"{path}.{name}": field.description
        for path, model in every_section().items()
        for name, field in model.model_fields.items()
        if f"{path}.{name}" not in every_section()
    }
    assert len(described) > 20
    assert [path for path, text in described.items() if not text] == []


def test_every_section_of_the_settings_is_described() -> None:
    for path, model in every_section().items():
        assert (inspect.getdoc(model) or "").startswith(f"{path}: "), path


def commented() -> Iterator[tuple[str, str]]:
    """The comment right above each key of the example file, by the key's full path."""
    levels: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in EXAMPLE.read_text().splitlines():
        shown = re.fullmatch(r"( *)#?( *)(?:- )?([a-z_]+):(?: .*)?", line)
        said = re.fullmatch(r" *#(?: {4})?# (.*)|(?: *)# (?! )(.*)", line)
        if said:
            comment.append(said[1] or said[2])
        elif shown:
            depth = len(shown[1]) + len(shown[2]) + 2 * ("- " in line.split(":")[0])
            levels = [*(each for each in levels if each[0] < depth), (depth, shown[3])]
            if comment:
                yield ".".join(name for _, name in levels), " ".join(comment)
            comment = []
        else:
            comment = []


def test_the_example_file_says_of_each_setting_what_the_documentation_says() -> None:
    models = every_section()
    compared = 0
    for path, comment in commented():
        section, _, name = path.rpartition(".")
        if path != "pvc" and path not in models:
            description = " ".join(models[section].model_fields[name].description.split())
            assert comment.startswith(description.rstrip(".")), path
            compared += 1
    assert compared > 10


# Records


def test_every_record_is_in_the_architecture_and_every_one_there_exists() -> None:
    table = page("architecture").split("\n| path |", 1)[1].split("\n\n", 1)[0]
    paths = re.findall(r"^\| `([^`]+)` \| ", table, re.MULTILINE)
    assert sorted(paths) == sorted(record.template for record in started()[1].records)


# Errors

Codes = dict[str, set[int]]


@cache
def every_error() -> dict[str, type[errors.PvcdError]]:
    """Their error classes by name."""
    for package in PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    waiting, classes = [errors.PvcdError], {}
    while waiting:
        error = waiting.pop()
        if error.__module__.startswith(tuple(f"{package.__name__}." for package in PACKAGES)):
            classes[error.__name__] = error
        waiting.extend(error.__subclasses__())
    return classes


def constant(node: ast.expr) -> str:
    """The text that is written there; empty for what is computed."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def is_of_a_kind(error: type[errors.PvcdError]) -> bool:
    """Return whether its code begins with the kind of thing that it is about, its first argument."""
    return next(iter(inspect.signature(error).parameters)) == "kind"


def given_codes(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The name of each function or class that is called with a code, and the code."""
    positions = {
        node.name: [argument.arg for argument in node.args.args].index("code")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and "code" in [argument.arg for argument in node.args.args]
    }
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            name = ast.unparse(call.func).rpartition(".")[2]
            yield from ((name, constant(keyword.value)) for keyword in call.keywords if keyword.arg == "code")
            if name in positions and len(call.args) > positions[name]:
                yield name, constant(call.args[positions[name]])
            if (kind := every_error().get(name)) and is_of_a_kind(kind) and constant(call.args[0]):
                rest = [""] * (len(inspect.signature(kind).parameters) - 1)
                yield name, kind(constant(call.args[0]), *rest).code
    for record in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for each in record.body:  # the name of its kind is part of the codes of errors
            if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "kind":
                code = constant(each.value).replace(" ", "-")
                yield from (("NotFound", f"{code}-not-found"), ("Conflict", f"{code}-exists"))


def http_error(name: str) -> web.HTTPException:
    """One of aiohttp's errors."""
    more: dict[str, dict[str, Any]] = {
        "HTTPMethodNotAllowed": {"method": "GET", "allowed_methods": ["PUT"]},
        "HTTPRequestEntityTooLarge": {"max_size": 1},
    }
    error: web.HTTPException = getattr(web, name)(**more.get(name, {}))
    return error


@cache
def codes_of_the_source() -> tuple[Codes, set[str]]:
    """Each code of an error with its statuses; and those that a node, or the reply to a mistake of ours, passes on."""
    codes: Codes = defaultdict(set)
    passed: set[str] = set()
    for error in {each for each in every_error().values() if not is_of_a_kind(each)}:
        codes[error.code].add(error.status)
    for text in (file.read_text() for file in SOURCES):
        for name, code in given_codes(ast.parse(text)):
            if name in every_error():
                codes[code].add(every_error()[name].status)
            else:
                passed.add(code)
        for name in set(re.findall(r"\bweb\.(HTTP[A-Z]\w+)", text)) - {"HTTPException"}:
            if getattr(web, name).status_code >= 400:
                codes[middleware._code(http_error(name))].add(http_error(name).status)
    return {code: codes[code] for code in codes if code}, passed - {""}


def documented_codes() -> Codes:
    """Each code of the page, with the statuses that stand there."""
    found = re.findall(r"^### `([a-z-]+)`\n\n\*\*([0-9 or]+)\.\*\* \S", page("errors"), re.MULTILINE)
    assert len(found) == len(re.findall("^### ", page("errors"), re.MULTILINE)), "an entry has another form"
    assert len(found) == len(dict(found)), "a code stands there twice"
    return {code: {int(status) for status in statuses.split(" or ")} for code, statuses in found}


def test_every_error_code_is_documented_and_every_documented_one_exists() -> None:
    codes, passed = codes_of_the_source()
    assert {"vm-not-found", "zookeeper-unavailable", "body-too-large"} <= set(codes)
    assert "command-unknown" in passed
    assert sorted(documented_codes()) == sorted(set(codes) | passed)


def test_every_documented_status_is_the_true_one() -> None:
    codes, passed = codes_of_the_source()
    for code, statuses in documented_codes().items():
        if code in passed:  # it comes back from a node as Failed, or is that of a mistake in the API itself
            own = codes.get(code, set())
            assert own <= statuses <= own | {errors.Failed.status, 500}, code
        else:
            assert statuses == codes[code], code


# Plugins


def rows(text: str, heading: str) -> list[str]:
    """The first column of the table with this heading, without the backticks."""
    table = text.split(f"\n| {heading} |", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `(\w+)` \| ", table, re.MULTILINE)


def test_every_hook_is_documented_and_every_documented_one_exists() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("register_")]
    assert sorted(rows(page("plugins"), "hook")) == sorted(hooks)


def test_every_name_for_plugins_is_documented_and_every_documented_one_exists() -> None:
    assert sorted(rows(page("plugins"), "name")) == sorted(pvcd.__all__)


GIVEN = (store.Store, context.Operations, context.NodeCommands)
"""Of these, plugins are given one and make none."""
REFERENCE: dict[str, type] = {
    **{each.__name__: each for each in (pvcd.Context, pvcd.Operation, pvcd.Run, *GIVEN)},
    **{each.__name__: each for each in (pvcd.Requeue, pvcd.Outcome, pvcd.Health, testing.SimulatedCluster)},
    **{kind.takes.__name__: kind.takes for kind in kinds.KINDS if kind.takes is not click.Command},
}


def parts(of: type) -> set[str]:
    """Return the arguments that make one, and its public parts."""
    own = {name for name, part in vars(of).items() if isinstance(part, FunctionType | property | classmethod)}
    given = set() if of in GIVEN or of is pvcd.Record else set(inspect.signature(of).parameters)
    return {name for name in own | given if not name.startswith(("_", "model_"))}


def reference() -> dict[str, str]:
    """The sections of the page, by what each is about."""
    _, *sections = re.split(r"^### `([\w.]+)`$", page("plugin-reference"), flags=re.MULTILINE)
    return dict(zip(sections[::2], sections[1::2], strict=True))


def test_everything_that_plugins_declare_or_are_given_is_in_the_reference() -> None:
    assert sorted(reference()) == sorted([*REFERENCE, "click.Command"])


@pytest.mark.parametrize("name", REFERENCE)
def test_each_part_is_in_the_reference_and_each_one_there_exists(name: str) -> None:
    firsts = re.findall(r"^\| (`.+?`) \| ", reference()[name], re.MULTILINE)
    documented = [part for first in firsts for part in re.findall(r"`(\w+)`", first)]
    assert sorted(documented) == sorted(parts(REFERENCE[name]))


def test_every_hook_returns_what_the_documentation_says() -> None:
    found = re.findall(r"^\| `(register_\w+)` \| `([\w.]+)`", page("plugins"), re.MULTILINE)
    takes = {kind.hook: kind.takes.__name__ for kind in kinds.KINDS}
    assert {hook: what.rpartition(".")[2] for hook, what in found} == takes


async def test_the_first_plugin_of_the_documentation_answers_as_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sitting = page("plugins").split("\n## Begin\n")[1].split("\n## ")[0]
    (name,) = re.findall(r"^    pvcd plugin new (\w+)$", sitting, re.MULTILINE)
    monkeypatch.syspath_prepend(project.create(name, tmp_path))
    requests = [shlex.split(line) for line in re.findall(r"^    (curl .+)$", sitting, re.MULTILINE)]
    assert len(requests) > 3
    async with testing.SimulatedCluster(["pvchv1"], [importlib.import_module(f"pvcd_{name}")]) as cluster:
        await cluster.advance(10)
        for request in requests:
            method = request[request.index("-X") + 1] if "-X" in request else "GET"
            values = dict([request[request.index("-d") + 1].split("=", 1)] if "-d" in request else [])
            url = next(each for each in request if each.startswith("http"))
            reply = await cluster.request(method, url.partition(":7370")[2], **values)
            assert reply.status == 200, reply.body


def python_blocks(text: str) -> list[str]:
    return [token.content for token in MarkdownIt().parse(text) if token.type == "fence" and token.info == "python"]


def module(name: str, source: str, **names: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(names)
    exec(compile(textwrap.dedent(source), name, "exec"), made.__dict__)
    return made


async def test_the_plugin_of_the_documentation_does_what_its_test_says() -> None:
    plugin, *_, test = python_blocks(page("plugins"))
    greeting = module("greeting", plugin)
    names = {"SimulatedCluster": testing.SimulatedCluster, "greeting": greeting}
    await module("test_greeting", test, **names).test_greets()


def test_the_pieces_of_plugins_in_the_documentation_can_be_declared() -> None:
    _, *pieces, _ = python_blocks(page("plugins"))
    names = {name: getattr(pvcd, name) for name in pvcd.__all__}
    made = module("pieces", "\n".join(pieces), **names)
    assert made.Greetings().word == "Hello"
    assert made.Greeting.at("you") == "/greetings/you"
    assert len(made.handlers.handlers) == 1


# The readme


def test_the_readme_takes_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text().split()) < 900


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_a_page_links_to_is_there(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target
