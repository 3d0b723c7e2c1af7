"""Which texts are scripts with an install(**kwargs)."""

from __future__ import annotations

import pytest

from pvcd_plugins.provisioner.programs.syntax import look


@pytest.mark.parametrize(
    "script",
    [
        "def install(**kwargs): ...",
        "def install(**k):\n    return k",
        "import os\n\n@print\ndef install(**kwargs: str) -> None:\n    pass",
        "def install(vm_name): ...\n\ndef install(**kwargs): ...",
        "# -*- coding: utf-16 -*-\ndef install(**kwargs): ...",
        "def install(**kwargs):\r\n    print('ü')\r\n",
    ],
)
def test_a_script_is_fine(script: str) -> None:
    assert look(script) == {"mistake": None, "warnings": []}


@pytest.mark.parametrize(
    ("script", "mistake"),
    [
        ("", "it has no function install(**kwargs) at its top level"),
        ("install = print", "it has no function install(**kwargs) at its top level"),
        ("class A:\n def install(**k): ...", "it has no function install(**kwargs) at its top level"),
        ("if True:\n def install(**k): ...", "it has no function install(**kwargs) at its top level"),
        ("\ndef install(): ...", "line 2: install() must take **kwargs and nothing else"),
        ("def install(kwargs): ...", "line 1: install() must take **kwargs and nothing else"),
        ("def install(*a, **k): ...", "line 1: install() must take **kwargs and nothing else"),
        ("def install(vm_name, **k): ...", "line 1: install() must take **kwargs and nothing else"),
        ("def install(*, vm_name, **k): ...", "line 1: install() must take **kwargs and nothing else"),
        ("def install(a, /, **k): ...", "line 1: install() must take **kwargs and nothing else"),
        ("\n\nasync def install(**k): ...", "line 3: install() must not be async"),
        ("def install(**k):\n    x =\n", "line 2: invalid syntax"),
        ("def install(**k):\nx", "line 2: expected an indented block after function definition on line 1"),
        ("return 1\ndef install(**k): ...", "line 1: 'return' outside function"),
        ("\ndef install(**k):\n    break", "line 3: 'break' outside loop"),
        ("x = '\u202e", "line 1: unterminated string literal (detected at line 1)"),
        ("x\u202e = 1", "line 1: invalid non-printable character U+202E"),
        ("x = 1\0", "source code string cannot contain null bytes"),
        ("(" * 1000 + ")" * 1000, "line 1: too many nested parentheses"),
        ("-" * 5000 + "1", "it is too large or nested too deeply to be compiled"),
        ("x" + ".a" * 50_000, "it is too large or nested too deeply to be compiled"),
    ],
)
def test_what_is_no_script_is_refused_with_its_line(script: str, mistake: str) -> None:
    assert look(script)["mistake"] == mistake


def test_python_warns_with_the_line() -> None:
    assert look("def install(**k):\n    return k is 'a'\n")["warnings"] == [
        'line 2: "is" with a literal. Did you mean "=="?'
    ]


def test_there_are_few_warnings_and_short_ones() -> None:
    said = look("def install(**k):\n" + "    k is 'a'\n" * 100)["warnings"]
    assert len(said) == 10 and all(len(text) < 250 and text.isprintable() for text in said)


def test_nothing_of_a_script_is_run() -> None:
    assert look("raise SystemExit\n\ndef install(**kwargs): ...")["mistake"] is None
