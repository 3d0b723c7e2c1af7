"""The lock, the state file and the marks by which a sandbox knows its processes, on a made-up /proc."""

import os

import pytest

from pvcd.errors import Conflict
from pvcd_plugins.sandbox import state
from pvcd_plugins.sandbox.state import Phase, ProcessId, Server, State


class Proc:
    """A made-up /proc."""

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


def test_a_process_runs_while_its_start_time_is_the_same(proc):
    proc.add(77, name="a) Z (b", started=5)
    assert state.start_time(77, proc.path) == 5
    assert state.runs(ProcessId(77, 5), proc.path)
    assert not state.runs(ProcessId(77, 6), proc.path)
    assert not state.runs(ProcessId(78, 5), proc.path)


def test_a_zombie_runs_no_more(proc):
    proc.add(77, letter="Z")
    assert not state.runs(ProcessId(77, 5), proc.path)


def test_the_state_is_read_as_it_was_written(sandbox):
    known = a_state(a_server(ProcessId(3, 4)))
    state.write(sandbox, known)
    assert state.read(sandbox) == known
    assert not list(sandbox.glob("*.new"))


@pytest.mark.parametrize("text", ["", "{", '{"ready": true}'])
def test_a_broken_state_file_is_no_state(sandbox, text):
    (sandbox / "state.json").write_text(text)
    assert state.read(sandbox) is None


def test_the_lock_is_held_by_one_at_a_time(sandbox):
    with state.lock(sandbox), pytest.raises(Conflict, match="is in use"), state.lock(sandbox):
        pass
    with state.lock(sandbox):
        pass


def test_a_directory_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(Conflict, match="is not empty and is no sandbox"):
        state.make(tmp_path)
    assert not state.is_sandbox(tmp_path)


def test_a_sandbox_may_be_made_twice(sandbox):
    (sandbox / "data").touch()
    state.make(sandbox)
    assert state.is_sandbox(sandbox)


def test_leftovers_are_known_by_the_mark_in_their_environment(sandbox, proc):
    proc.add(20, environment=("PATH=/bin", f"{state.MARK}={sandbox}"))
    proc.add(21, environment=(f"{state.MARK}={sandbox}2",))
    proc.add(22, environment=(f"OTHER={state.MARK}={sandbox}",))
    proc.add(23, environment=(f"{state.MARK}={sandbox}",), letter="Z")
    proc.add(os.getpid(), environment=(f"{state.MARK}={sandbox}",))
    assert state.leftovers(sandbox, proc.path) == {ProcessId(20, 5)}


def test_leftovers_are_known_by_the_state_file_and_their_start_time(sandbox, proc):
    proc.add(30, started=5)
    proc.add(31, started=6)
    state.write(sandbox, a_state(a_server(ProcessId(30, 5)), a_server(ProcessId(31, 5))))
    assert state.leftovers(sandbox, proc.path) == {ProcessId(30, 5)}


def test_what_a_reboot_would_remove_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "libvirtd.pid").touch()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "domain.xml").touch()
    state.clear(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["etc", "domain.xml"]
    state.clear(tmp_path / "none")
