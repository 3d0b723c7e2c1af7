"""The command that runs all tests: what runs side by side and what alone, and what becomes of tests that fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "run.py"
SETTINGS = """
[tool.pytest.ini_options]
addopts = "--strict-markers"
markers = ["alone: with nothing beside it"]
"""
TESTS = """
import os, pathlib, pytest

SEEN = pathlib.Path(__file__).with_name("seen")

def test_good(): pass

def test_bad(): assert {good}

def test_now_and_then():
    before = SEEN.exists()
    SEEN.touch()
    assert before or {good}

@pytest.mark.alone
def test_alone():
    assert "PYTEST_XDIST_WORKER" not in os.environ
    assert {alone}
"""
ENVIRONMENT = {"TEST_WORKERS": "2", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"}
"""Other plugins take longer to load than all these tests."""
LEFT_OUT = {"PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST"}


def run(folder: Path, *arguments: str, good: bool = True, alone: bool = True, more: str = "") -> tuple[int, str]:
    """The status of the command on some small tests, and what it said."""
    (folder / "pyproject.toml").write_text(SETTINGS)
    (folder / "test_small.py").write_text(TESTS.format(good=good, alone=alone) + more)
    others = {name: value for name, value in os.environ.items() if name not in LEFT_OUT and "XDIST" not in name}
    done = subprocess.run(
        [sys.executable, str(RUN), *arguments],
        cwd=folder,
        env=others | ENVIRONMENT,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stdout + done.stderr


def test_all_tests_are_run_side_by_side_or_alone(tmp_path: Path) -> None:
    status, said = run(tmp_path)
    assert status == 0, said
    assert "3 passed" in said and "1 passed, 3 deselected" in said


def test_what_fails_fails(tmp_path: Path) -> None:
    assert run(tmp_path, good=False)[0] == 1
    assert run(tmp_path, alone=False)[0] == 1


def test_what_passes_the_second_time_is_flaky_and_what_fails_twice_fails(tmp_path: Path) -> None:
    status, said = run(tmp_path, "--once-more", good=False)
    assert status == 1, said
    assert "flaky: test_small.py::test_now_and_then" in said and said.count("flaky: ") == 1


def test_what_is_only_flaky_is_no_failure(tmp_path: Path) -> None:
    once = "\ndef test_once():\n    before = os.path.exists('once')\n    open('once', 'w').close()\n    assert before\n"
    assert run(tmp_path, more=once)[0] == 1
    (tmp_path / "once").unlink()
    status, said = run(tmp_path, "--once-more", more=once)
    assert status == 0, said
    assert "flaky: test_small.py::test_once" in said


@pytest.mark.parametrize("broken", ["import nothing_of_this_name", "assert False"])
def test_tests_that_cannot_be_collected_are_a_failure(tmp_path: Path, broken: str) -> None:
    (tmp_path / "test_broken.py").write_text(broken)
    status, said = run(tmp_path, "--once-more")
    assert status not in (0, 5), said
    assert "flaky: " not in said
