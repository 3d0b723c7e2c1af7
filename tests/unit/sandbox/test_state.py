"""The lock, the state file and the marks that identify a sandbox's processes, on a fake /proc."""

import os
from pathlib import Path

import pytest

from pvcd.errors import Conflict, Failed
from pvcd_plugins.sandbox import state
from pvcd_plugins.sandbox.state import Phase, ProcessId, Server, State


class Proc:
    """A fake /proc."""

    def __init__(self, path):
        self.path = path
        path.mkdir()
        (path / "meminfo").write_text("")

    def add(self, pid, *, name="x", letter="S", started=5, environment=()):
        entry = self.path / str(pid)
        entry.mkdir()
        rest = " ".join(["0"] * 18)
        (entry / "stat").write_text(f"{pid} ({name}) {letter} {rest} {started} 0 0\n")
        (entry / "environ").write_text("\0".join([*environment, ""]))


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path / "proc")


@pytest.fixture
def sandbox(tmp_path):
    directory = tmp_path / "sandbox"
    state.make(directory)
    return directory


def a_state(*servers):
    return State(supervisor=ProcessId(1, 2), ready=True, ports={"api": 7370}, servers=servers)


def a_server(process):
    return Server(name="redis", process=process, argv=("x",), port=1, phase=Phase.RUNNING, since=0.0, restarts=0)


def test_process_is_identified_by_pid_and_start_time(proc):
    proc.add(77, name="a) Z (b", started=5)
    assert state.start_time(77, proc.path) == 5
    assert state.runs(ProcessId(77, 5), proc.path)
    assert not state.runs(ProcessId(77, 6), proc.path)
    assert not state.runs(ProcessId(78, 5), proc.path)


def test_zombie_does_not_run(proc):
    proc.add(77, letter="Z")
    assert not state.runs(ProcessId(77, 5), proc.path)


def test_state_is_read_as_written(sandbox):
    known = a_state(a_server(ProcessId(3, 4)))
    state.write(sandbox, known)
    assert state.read(sandbox) == known
    assert not list(sandbox.glob("*.new"))


@pytest.mark.parametrize("text", ["", "{", '{"ready": true}'])
def test_broken_state_file_is_ignored(sandbox, text):
    (sandbox / "state.json").write_text(text)
    assert state.read(sandbox) is None


def test_lock_is_exclusive(sandbox):
    with state.lock(sandbox), pytest.raises(Conflict, match="in use by"), state.lock(sandbox):
        pass
    with state.lock(sandbox):
        pass


def test_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(Conflict, match="it holds other files"):
        state.make(tmp_path)
    assert not state.is_sandbox(tmp_path)


@pytest.mark.parametrize("made_before", [True, False])
def test_directory_is_closed_to_others_by_whomever_it_was_made(tmp_path, made_before):
    directory = tmp_path / "sandbox"
    if made_before:
        directory.mkdir(mode=0o777)
    state.make(directory)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_sandbox_prepared_by_another_user_is_refused(sandbox, monkeypatch):
    sandbox.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: sandbox.stat().st_uid + 1)
    with pytest.raises(Conflict, match="it belongs to another user"):
        state.make(sandbox)
    assert sandbox.stat().st_mode & 0o777 == 0o755


def test_state_that_may_not_be_read_is_a_sentence(sandbox, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(Failed, match=r"only root can\. Use sudo\."):
        state.read(sandbox)


def test_existing_sandbox_is_accepted(sandbox):
    (sandbox / "data").touch()
    state.make(sandbox)
    assert state.is_sandbox(sandbox)


def test_processes_are_found_by_the_mark_in_their_environment(sandbox, proc):
    proc.add(20, environment=("PATH=/bin", f"{state.MARK}={sandbox}"))
    proc.add(21, environment=(f"{state.MARK}={sandbox}2",))
    proc.add(22, environment=(f"OTHER={state.MARK}={sandbox}",))
    proc.add(23, environment=(f"{state.MARK}={sandbox}",), letter="Z")
    proc.add(os.getpid(), environment=(f"{state.MARK}={sandbox}",))
    assert state.processes(sandbox, proc.path) == {ProcessId(20, 5)}


def test_processes_are_found_by_the_state_file_and_their_start_time(sandbox, proc):
    proc.add(30, started=5)
    proc.add(31, started=6)
    state.write(sandbox, a_state(a_server(ProcessId(30, 5)), a_server(ProcessId(31, 5))))
    assert state.processes(sandbox, proc.path) == {ProcessId(30, 5)}


def test_only_runtime_files_are_removed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "libvirtd.pid").touch()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "domain.xml").touch()
    state.clear(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["etc", "domain.xml"]
    state.clear(tmp_path / "none")
