"""The command `pvcd`: what it offers, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pvcd import __version__
from pvcd.daemon import run as daemons
from pvcd.daemon.cli import SUBCOMMANDS, main
from pvcd.declare.context import Role


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, arguments)


def test_help_names_every_subcommand() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in ("api", "node", "worker", "check", "plugins", *SUBCOMMANDS):
        assert f"\n  {name}" in result.stdout


@pytest.mark.parametrize("name", ["api", "node", "worker", "check", "plugins", *SUBCOMMANDS])
def test_each_subcommand_explains_itself(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert main.get_command(None, name).help  # type: ignore[arg-type, union-attr]


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").stdout.endswith(f"version {__version__}\n")


def test_an_unknown_subcommand_ends_with_2() -> None:
    assert run("frobnicate").exit_code == 2


@pytest.mark.parametrize(("command", "role"), [("api", Role.API), ("node", Role.NODE), ("worker", Role.WORKER)])
@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_daemon_ends_with_the_code_that_it_returns(
    monkeypatch: pytest.MonkeyPatch, command: str, role: Role, code: int
) -> None:
    roles: list[Role] = []

    def daemon(asked: Role, *, shared_port: bool = False, fd: int | None = None) -> int:
        roles.append(asked)
        return code

    monkeypatch.setattr(daemons, "run", daemon)
    assert run(command).exit_code == code
    assert roles == [role]


def test_one_process_runs_several_api_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(daemons, "run_api_processes", lambda count: counts.append(count) or 0)
    assert run("api", "--workers", "3").exit_code == 0
    assert counts == [3]
    assert run("api", "--workers", "0").exit_code == 2


@pytest.mark.parametrize("role", [Role.API, Role.NODE, Role.WORKER])
def test_a_daemon_with_wrong_settings_ends_with_2_before_it_does_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], role: Role
) -> None:
    file = tmp_path / "pvc-api.yaml"
    file.write_text("pvc: {debug: 1, coordinators: []}")
    monkeypatch.setenv("PVC_CONFIG_FILE", str(file))
    assert daemons.run(role) == 2
    assert capsys.readouterr().err.splitlines() == [
        "pvc.coordinators: at least one is needed.",
        "pvc.api: this setting is required.",
    ]
