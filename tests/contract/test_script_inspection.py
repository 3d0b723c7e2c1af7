"""The contract of script inspection; the separate process survives scripts that crash the compiler."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from pvcd_plugins.provisioner.programs.inspection import MAX_CONCURRENT, InsideInspection, Inspection, OutsideInspection

TOO_DEEP = "it is too large or nested too deeply to be compiled"
GOOD = "def install(**kwargs): ...\n"


@pytest.fixture(params=[InsideInspection, OutsideInspection])
def inspection(request: pytest.FixtureRequest) -> Inspection:
    made: Inspection = request.param()
    return made


@pytest.mark.parametrize(
    ("script", "mistake"),
    [
        (GOOD, None),
        (GOOD + "# ü\U0001f4a9\r\n", None),
        ("raise SystemExit\n" + GOOD, None),
        ("", "it has no function install(**kwargs) at its top level"),
        ("\ndef install(): ...", "line 2: install() must take **kwargs and nothing else"),
        ("x = 'ü", "line 1: unterminated string literal (detected at line 1)"),
        ("x = 1\0", "source code string cannot contain null bytes"),
    ],
)
async def test_a_mistake_is_reported_with_its_line(inspection: Inspection, script: str, mistake: str | None) -> None:
    assert await inspection.look(script) == {"mistake": mistake, "warnings": []}


async def test_warnings_of_python_are_reported(inspection: Inspection) -> None:
    said = await inspection.look(GOOD + "x = 1 is 1\n")
    assert said == {"mistake": None, "warnings": ['line 2: "is" with a literal. Did you mean "=="?']}


BOMBS = {
    "parentheses": "(" * 130_000 + ")" * 130_000,
    "brackets": "[" * 90 + "x" + "]" * 90,
    "minus": "-" * 260_000 + "1",
    "not": "not " * 60_000 + "1",
    "attributes": "x" + ".a" * 130_000,
    "calls": "x" + "()" * 130_000,
    "sum": "1" + "+1" * 130_000,
    "lambda": "lambda:" * 30_000 + "1",
    "conditions": "1 if 1 else " * 20_000 + "1",
    "elif": "if 1: pass\n" + "elif 1: pass\n" * 20_000,
    "targets": "x=" * 130_000 + "1",
    "power": "9**" * 80_000 + "9",
    "large": "x = 1 << 10**9\ny = 'a' * 10**9\nz = [0] * 10**9\n",
    "digits": "9" * 260_000,
    "f-string": "f'" + "{x}" * 80_000 + "'",
    "nested f-string": "f'{" * 100 + "}'" * 100,
    "indented": "".join(" " * n + "if 1:\n" for n in range(99)) + " " * 99 + "pass\n",
    "names": "\n".join(f"x{n}=1" for n in range(20_000)),
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_malicious_script_ends_only_its_own_inspection(bomb: str) -> None:
    inspection = OutsideInspection()
    begun = time.monotonic()
    said = await inspection.look(BOMBS[bomb] + "\n" + GOOD)
    assert time.monotonic() - begun < 20
    assert said["mistake"] is None or len(said["mistake"]) < 250
    assert (await inspection.look(GOOD))["mistake"] is None


async def test_a_killed_inspection_is_a_mistake_of_the_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "dies.py"
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr("pvcd_plugins.provisioner.programs.syntax.__file__", str(program))
    assert (await OutsideInspection().look(GOOD))["mistake"] == TOO_DEEP


async def test_the_environment_does_not_affect_the_inspection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ast.py").write_text("raise SystemExit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert (await OutsideInspection().look(GOOD))["mistake"] is None


async def test_the_number_of_concurrent_inspections_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    running = most = 0

    async def run(*_: object, **__: object) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        raise AssertionError("enough")

    monkeypatch.setattr("pvcd.programs.run", run)
    inspection = OutsideInspection()
    await asyncio.gather(*(inspection.look(GOOD) for _ in range(10)), return_exceptions=True)
    assert most == MAX_CONCURRENT
