"""What `pvcd sandbox status`, `up` and `down` say, without any process."""

import json
import os
import time

import pytest
from click.testing import CliRunner

from pvcd_plugins.sandbox import state
from pvcd_plugins.sandbox.command import sandbox as command
from pvcd_plugins.sandbox.state import Phase, ProcessId, Server, State

OURSELVES = ProcessId(os.getpid(), state.start_time(os.getpid()))
NOBODY = ProcessId(os.getpid(), 1)


@pytest.fixture
def directory(tmp_path):
    state.make(tmp_path / "sandbox")
    return tmp_path / "sandbox"


def known(directory, *, supervisor=OURSELVES, server=OURSELVES, phase=Phase.RUNNING, ready=True):
    redis = Server(name="redis", process=server, argv=("x",), port=6379, phase=phase, since=time.time() - 7, restarts=2)
    state.write(
        directory,
        State(supervisor=supervisor, ready=ready, ports={"api": 7370, "redis": 6379}, servers=(redis,)),
    )


def invoke(directory, *arguments):
    name, *options = arguments
    return CliRunner().invoke(command, [name, "--directory", str(directory), *options])


def test_status_of_a_whole_sandbox_ends_with_0(directory):
    known(directory)
    result = invoke(directory, "status")
    assert result.exit_code == 0
    assert f"redis       running   {os.getpid():>8}   6379       7 s         2" in result.output
    assert "API: http://127.0.0.1:7370/api/v1" in result.output


def test_status_as_json_is_complete(directory):
    known(directory)
    facts = json.loads(invoke(directory, "status", "--json").output)
    server = facts["servers"][0]
    assert facts["ready"] is True and facts["pid"] == os.getpid()
    assert (server["name"], server["state"], server["port"], server["restarts"]) == ("redis", "running", 6379, 2)


@pytest.mark.parametrize(
    "facts",
    [
        {"server": NOBODY},
        {"phase": Phase.STARTING},
        {"supervisor": NOBODY},
        {"ready": False},
    ],
)
def test_status_of_a_sandbox_that_is_not_whole_ends_with_3(directory, facts):
    known(directory, **facts)
    assert invoke(directory, "status").exit_code == 3


def test_status_where_nothing_runs_says_so(tmp_path):
    result = invoke(tmp_path / "none", "status")
    assert result.exit_code == 3
    assert result.output == f"Nothing runs in {tmp_path / 'none'}.\n"


def test_up_needs_root(directory, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in ("up", "down"):
        result = invoke(directory, name)
        assert result.exit_code == 1
        assert "run it as root" in result.output


def test_up_of_one_that_is_up_says_where_its_api_is(directory, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    known(directory)
    result = invoke(directory, "up")
    assert result.exit_code == 0
    assert "is up already. API: http://127.0.0.1:7370/api/v1" in result.output


def test_up_of_one_that_is_half_dead_is_an_error_that_names_what_does_not_run(directory, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    known(directory, server=NOBODY)
    result = invoke(directory, "up")
    assert result.exit_code == 1
    assert "not running: redis" in result.output


def test_down_where_nothing_ever_ran_is_fine(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = invoke(tmp_path, "down")
    assert result.exit_code == 0
    assert "There is no sandbox" in result.output
    assert not list(tmp_path.iterdir())


def test_a_port_out_of_range_is_refused(directory):
    assert invoke(directory, "up", "--api-port", "70000").exit_code == 2
