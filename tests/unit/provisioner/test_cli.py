"""pvcd examples."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from pvcd_plugins.provisioner.cli import EXAMPLES, examples


def test_each_example_can_be_shown() -> None:
    names = CliRunner().invoke(examples, ["list"]).stdout.split()
    assert "debootstrap.py" in names
    for name in names:
        assert CliRunner().invoke(examples, ["show", name]).stdout == (EXAMPLES / name).read_text()


def test_what_is_no_example_is_refused() -> None:
    result = CliRunner().invoke(examples, ["show", "../cli.py"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "There is no example '../cli.py'. Examples: " in result.stderr


def test_all_are_written_once(tmp_path: Path) -> None:
    names = CliRunner().invoke(examples, ["list"]).stdout.split()
    directory = tmp_path / "new" / "examples"
    assert CliRunner().invoke(examples, ["write", str(directory)]).exit_code == 0
    assert sorted(path.name for path in directory.iterdir()) == names
    (directory / "noop.py").write_text("mine")
    result = CliRunner().invoke(examples, ["write", str(directory)])
    assert result.exit_code == 1
    assert "already" in result.stderr
    assert (directory / "noop.py").read_text() == "mine"
