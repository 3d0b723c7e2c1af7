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


def test_a_new_plugin_says_its_own_name_only(folder: Path) -> None:
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


def test_two_new_plugins_go_together(folder: Path, tmp_path: Path) -> None:
    other = project.create("other", tmp_path)
    declared = gather([project.find(str(folder)), project.find(str(other))])
    assert [plugin.name for plugin in declared.plugins] == ["greeter", "other"]
    del sys.modules["pvcd_other"]


def test_a_new_plugin_shows_most_hooks(folder: Path) -> None:
    project.find(str(folder))
    hooks = {name for name in vars(importlib.import_module("pvcd_greeter")) if name.startswith("register_")}
    richer = {"settings", "components", "node_facts", "operations", "guards", "listeners"}
    assert {kind.hook for kind in KINDS} - hooks == {f"register_{kind}" for kind in richer}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("x", "A plugin's name is 2 to 20 small letters and digits, the first a letter, not 'x'."),
        ("Greeter", "A plugin's name is 2 to 20 small"),
        ("my-plugin", "A plugin's name is 2 to 20 small"),
        ("1st", "A plugin's name is 2 to 20 small"),
        ("../up", "A plugin's name is 2 to 20 small"),
        ("a" * 21, "A plugin's name is 2 to 20 small"),
        ("vm", "The name 'vm' is taken by a plugin."),
        ("storage", "The name 'storage' is taken by a part of the API."),
        ("sandbox", "The name 'sandbox' is taken by a plugin."),
        ("examples", "The name 'examples' is taken by a subcommand."),
        ("mem", "The name 'mem' is taken by a node selector."),
        ("zookeeper", "The name 'zookeeper' is taken by a health check."),
        ("provision", "The name 'provision' is taken by a kind of tasks."),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    result = run("new", name, "--directory", str(tmp_path))
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cli", "filters", "health", "selectors", "steps"])
def test_the_example_began_as_a_new_plugin(name: str) -> None:
    skeleton = (project.SKELETON / "pvcd_skeleton" / f"{name}.py").read_text()
    assert (EXAMPLE / "pvcd_notes" / f"{name}.py").read_text() == skeleton.replace("skeleton", "notes")


def test_nothing_is_written_over(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("mine")
    result = run("new", "greeter", "--directory", str(tmp_path))
    assert (result.exit_code, result.stderr) == (1, f"Error: {folder} is there already.\n")
    assert (folder / "README.md").read_text() == "mine"


def test_complaints_are_told_below_their_check(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("REQUIRES_PLUGIN_API = '>=1,<2'\n")
    result = run("check", str(tmp_path / "odd.py"))
    assert result.exit_code == 1
    assert "\nfailed  texts\n        the module has no docstring.\nok " in result.stdout


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no plugin"),
        ("raise ValueError('out of order')", "cannot be imported: ValueError: out of order."),
    ],
)
def test_what_is_no_plugin_is_said_to_be_none(tmp_path: Path, content: str | None, sentence: str) -> None:
    file = tmp_path / "odd.py"
    if content:
        file.write_text(content)
    result = run("check", str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert sentence in result.stderr
    assert "is neither a Python file or package" in run("check", str(tmp_path)).stderr


def test_an_installed_plugin_is_found_by_its_name() -> None:
    assert project.find("node").origin.startswith("package pvcd_plugins.node")
