"""The output of `pvcd sandbox status`, `up`, `down` and `exec`, without any process."""

import json
import os
import time

import pytest
from click.testing import CliRunner

from pvcd_plugins.sandbox import network, state
from pvcd_plugins.sandbox.command import sandbox as command
from pvcd_plugins.sandbox.state import Phase, ProcessId, Server, State

OURSELVES = ProcessId(os.getpid(), state.start_time(os.getpid()))
ENDED = ProcessId(os.getpid(), 1)


@pytest.fixture
def directory(tmp_path):
    state.make(tmp_path / "sandbox")
    return tmp_path / "sandbox"


def known(directory, *, supervisor=OURSELVES, server=OURSELVES, phase=Phase.RUNNING, ready=True, names=("redis",)):
    values = {"process": server, "argv": ("x",), "port": 6379, "phase": phase, "since": time.time() - 7, "restarts": 2}
    servers = tuple(Server(name=name, **values) for name in names)
    state.write(
        directory,
        State(supervisor=supervisor, ready=ready, ports={"api": 7370, "redis": 6379}, servers=servers),
    )


def invoke(directory, *arguments):
    name, *options = arguments
    return CliRunner().invoke(command, [name, "--directory", str(directory), *options])


def test_status_exits_with_0_if_all_servers_run(directory):
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
        {"server": ENDED},
        {"phase": Phase.STARTING},
        {"supervisor": ENDED},
        {"ready": False},
    ],
)
def test_status_exits_with_3_if_a_part_does_not_run(directory, facts):
    known(directory, **facts)
    assert invoke(directory, "status").exit_code == 3


def test_status_says_that_nothing_runs(tmp_path):
    result = invoke(tmp_path / "none", "status")
    assert result.exit_code == 3
    assert result.output == f"Nothing runs in {tmp_path / 'none'}.\n"


def test_up_needs_root(directory, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in ("up", "down"):
        result = invoke(directory, name)
        assert result.exit_code == 1
        assert "requires root" in result.output


def test_up_of_a_running_sandbox_prints_its_api(directory, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    known(directory)
    result = invoke(directory, "up")
    assert result.exit_code == 0
    assert "is already up. API: http://127.0.0.1:7370/api/v1" in result.output


def test_up_of_an_incomplete_sandbox_names_the_servers_that_do_not_run(directory, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    known(directory, server=ENDED)
    result = invoke(directory, "up")
    assert result.exit_code == 1
    assert "not running: redis" in result.output


def test_down_without_a_sandbox_succeeds(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = invoke(tmp_path, "down")
    assert result.exit_code == 0
    assert "There is no sandbox" in result.output
    assert not list(tmp_path.iterdir())


def test_port_out_of_range_is_refused(directory):
    assert invoke(directory, "up", "--api-port", "70000").exit_code == 2


@pytest.fixture
def executed(monkeypatch):
    """What `exec` runs: the arguments and the environment."""
    calls = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(network, "join", lambda pid: None)
    monkeypatch.setattr(os, "execvpe", lambda file, argv, environment: calls.append((argv, environment)))
    monkeypatch.delenv("CEPH_CONF", raising=False)
    return calls


def test_exec_gives_a_program_the_settings_of_pvcd_and_of_ceph(directory, executed):
    known(directory, names=("redis", "ceph-mon"))
    assert invoke(directory, "exec", "ceph", "-s").exit_code == 0
    ((argv, environment),) = executed
    assert argv == ("ceph", "-s")
    assert environment["PVC_CONFIG_FILE"] == str(directory / "pvc-api.yaml")
    assert environment["CEPH_CONF"] == str(directory / "ceph" / "ceph.conf")
    assert environment["PATH"] == os.environ["PATH"]


def test_exec_in_a_sandbox_without_ceph_names_no_ceph(directory, executed):
    known(directory)
    assert invoke(directory, "exec", "true").exit_code == 0
    ((_, environment),) = executed
    assert "CEPH_CONF" not in environment
