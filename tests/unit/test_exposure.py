"""Warnings about what settings leave open: by `pvcd check`, and in the log of each daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pvcd.daemon import run
from pvcd.daemon.cli import main
from pvcd.daemon.exposure import warnings
from pvcd.declare.context import Role
from pvcd.settings import build

GOOD: dict[str, Any] = {
    "debug": False,
    "coordinators": ["hv1"],
    "api": {
        "listen_address": "0.0.0.0",
        "authentication": {"enabled": True, "secret_key": "k" * 32, "tokens": [{"token": "t" * 20}, {"token": ""}]},
        "ssl": {"enabled": False},
    },
    "zookeeper": {"username": "pvc", "password": "secret"},
    "redis": {"url": "redis://:secret@127.0.0.1"},
}
OPEN_API = "pvc.api listens on 0.0.0.0 without authentication: everyone who can reach port 7370 controls the cluster."
OPEN_ZOOKEEPER = (
    "pvc.zookeeper has no username and password: everyone who can reach ZooKeeper can read and change all records."
)
OPEN_REDIS = "pvc.redis.url has no password: everyone who can reach Redis can read task logs and wake task workers."
SHORT_KEY = "pvc.api.authentication.secret_key should have at least 32 random characters."
SHORT_TOKEN = "Token 2 of pvc.api.authentication.tokens should have at least 20 random characters."


def changed(**sections: Any) -> dict[str, Any]:
    """The good settings with other sections."""
    return {**GOOD, **sections}


def api(**values: Any) -> dict[str, Any]:
    return {**GOOD["api"], **values}


def authentication(**values: Any) -> dict[str, Any]:
    return api(authentication={**GOOD["api"]["authentication"], **values})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "pvc-api.yaml"
    file.touch(mode=0o640)
    return file


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, []),
        ({"api": authentication(enabled=False)}, [OPEN_API]),
        ({"api": api(authentication={"enabled": False}, listen_address="127.0.0.1")}, []),
        ({"api": api(authentication={"enabled": False}, listen_address="::1")}, []),
        ({"api": authentication(secret_key="k" * 31)}, [SHORT_KEY]),
        ({"api": authentication(tokens=[{"token": "t" * 20}, {"token": "t" * 19}])}, [SHORT_TOKEN]),
        ({"zookeeper": {}}, [OPEN_ZOOKEEPER]),
        ({"zookeeper": {"username": "pvc"}}, [OPEN_ZOOKEEPER]),
        ({"redis": {}}, [OPEN_REDIS]),
        ({"redis": {"url": "rediss://user@redis:6379/1"}}, [OPEN_REDIS]),
        ({"redis": {"url": "redis://redis?password=secret"}}, []),
        ({"redis": {"url": "unix:///run/redis.sock"}}, []),
    ],
)
def test_what_is_open_is_named(file: Path, sections: dict[str, Any], expected: list[str]) -> None:
    assert warnings(build(changed(**sections)), file) == expected


@pytest.mark.parametrize(("mode", "open_to_all"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_files_with_secrets_that_every_user_can_open_are_named(file: Path, mode: int, open_to_all: bool) -> None:
    key = file.with_name("key.pem")
    key.touch(mode=0o600)
    tls = {"enabled": True, "cert_file": str(key), "key_file": str(key)}
    for each in (file, key):
        each.chmod(mode)
        said = warnings(build(changed(api=api(ssl=tls))), file)
        sentence = f"{each} holds secrets, but every user of this machine can open it: run chmod o= {each}."
        assert said == ([sentence] if open_to_all else [])
        each.chmod(0o600)


def test_the_check_prints_warnings_and_succeeds(file: Path) -> None:
    file.write_text(yaml.safe_dump({"pvc": changed(zookeeper={}, redis={})}))
    result = CliRunner().invoke(main, ["check", str(file)])
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [f"Warning: {OPEN_ZOOKEEPER}", f"Warning: {OPEN_REDIS}"]


@pytest.mark.parametrize("role", [Role.API, Role.NODE, Role.WORKER])
def test_a_daemon_logs_the_warnings_when_it_starts(
    file: Path, role: Role, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(yaml.safe_dump({"pvc": changed(api=authentication(enabled=False))}))
    monkeypatch.setenv("PVC_CONFIG_FILE", str(file))
    monkeypatch.setattr(asyncio, "run", lambda work, **_: work.close())
    monkeypatch.setattr(run, "_log_to_stderr", lambda **_: None)
    assert run.run(role) == 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [OPEN_API]


def test_plugins_that_every_user_can_change_are_named(file: Path, tmp_path: Path) -> None:
    directory = tmp_path / "plugins"
    directory.mkdir(0o755)
    plugin, other = directory / "open.py", directory / "closed.py"
    plugin.touch()
    other.touch(0o644)
    plugin.chmod(0o646)
    (directory / "broken.py").symlink_to("nowhere")
    settings = build(changed(plugins={"directories": [str(directory)]}))
    (sentence,) = warnings(settings, file)
    assert sentence.endswith(f"run chmod o-w {plugin}.")
