"""`pvcd plugin`: what is new works as it is, and what is checked is told line by line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pvcd.daemon.cli import main
from pvcd.kit import project
from pvcd.plugin.kinds import KINDS
from pvcd.plugin.registry import gather
from pvcd.testing import conformance

EXAMPLE = Path(__file__).parents[2] / "examples" / "pvcd-notes"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["plugin", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A new plugin, forgotten when the test is over."""
    before, path = set(sys.modules), list(sys.path)
    assert run("new", "greeter", "--directory", str(tmp_path)).exit_code == 0
    yield tmp_path / "pvcd-greeter"
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("pvcd_greeter"):
            del sys.modules[name]


def test_a_new_plugin_contains_only_its_own_name(folder: Path) -> None:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"README.md", "setup.cfg", "pyproject.toml", "pvcd_greeter/__init__.py", "tests/test_greeter.py"} <= files
    assert not [path for path in files if "skeleton" in path or "skeleton" in (folder / path).read_text()]


def test_a_new_plugin_can_be_checked_at_once(folder: Path) -> None:
    result = run("check", str(folder))
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["ok", *name.split()]
        for name in (
            "plugin API",
            "declarations",
            *conformance.CHECKS,
            "doors",
            "answers",
            "tracebacks",
            "blocking",
            "stop",
        )
    ]


def test_two_new_plugins_work_together(folder: Path, tmp_path: Path) -> None:
    other = project.create("other", tmp_path)
    declared = gather([project.find(str(folder)), project.find(str(other))])
    assert [plugin.name for plugin in declared.plugins] == ["greeter", "other"]
    del sys.modules["pvcd_other"]


def test_a_new_plugin_uses_most_hooks(folder: Path) -> None:
    project.find(str(folder))
    hooks = {name for name in vars(importlib.import_module("pvcd_greeter")) if name.startswith("register_")}
    richer = {"settings", "components", "node_facts", "operations", "guards", "listeners"}
    assert {kind.hook for kind in KINDS} - hooks == {f"register_{kind}" for kind in richer}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("x", "name must be 2 to 20 lower case letters and digits, the first a letter; got 'x'."),
        ("Greeter", "name must be 2 to 20 lower case"),
        ("my-plugin", "name must be 2 to 20 lower case"),
        ("1st", "name must be 2 to 20 lower case"),
        ("../up", "name must be 2 to 20 lower case"),
        ("a" * 21, "name must be 2 to 20 lower case"),
        ("vm", "Cannot name a plugin 'vm': a plugin has this name."),
        ("core", "Cannot name a plugin 'core': a plugin has this name."),
        ("storage", "Cannot name a plugin 'storage': a part of the API has this name."),
        ("sandbox", "Cannot name a plugin 'sandbox': a plugin has this name."),
        ("examples", "Cannot name a plugin 'examples': a subcommand has this name."),
        ("mem", "Cannot name a plugin 'mem': a node selector has this name."),
        ("zookeeper", "Cannot name a plugin 'zookeeper': a health check has this name."),
        ("provision", "Cannot name a plugin 'provision': a kind of tasks has this name."),
    ],
)
def test_an_invalid_or_taken_name_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    result = run("new", name, "--directory", str(tmp_path))
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cli", "filters", "health", "selectors", "steps"])
def test_the_example_shares_files_with_a_new_plugin(name: str) -> None:
    skeleton = (project.SKELETON / "pvcd_skeleton" / f"{name}.py").read_text()
    assert (EXAMPLE / "pvcd_notes" / f"{name}.py").read_text() == skeleton.replace("skeleton", "notes")


def test_existing_files_are_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("mine")
    result = run("new", "greeter", "--directory", str(tmp_path))
    assert (result.exit_code, result.stderr) == (1, f"Error: Cannot create '{folder}': it exists already.\n")
    assert (folder / "README.md").read_text() == "mine"


def test_complaints_are_printed_below_their_check(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("REQUIRES_PLUGIN_API = '>=1,<2'\n")
    result = run("check", str(tmp_path / "odd.py"))
    assert result.exit_code == 1
    assert "\nfailed  texts\n        the module has no docstring.\nok " in result.stdout


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no plugin"),
        ("raise ValueError('out of order')", ": ValueError: out of order."),
    ],
)
def test_a_target_that_is_not_a_plugin_is_refused(tmp_path: Path, content: str | None, sentence: str) -> None:
    file = tmp_path / "odd.py"
    if content:
        file.write_text(content)
    result = run("check", str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert sentence in result.stderr
    assert "plugin must be a Python file or package" in run("check", str(tmp_path)).stderr


def test_an_installed_plugin_is_found_by_its_name() -> None:
    assert project.find("node").origin.startswith("package pvcd_plugins.node")
