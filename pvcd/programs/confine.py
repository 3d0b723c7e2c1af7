"""Confine a program so that nothing of it stays behind: a program of its own, of the standard library only.

    python -I -S confine.py PARENT REPORT FILE SECONDS NAME ARGUMENT...

PARENT is the process without which it ends. The program is the open file of the descriptor FILE, so that the file that
was checked is run, whatever is at its path by now. How it ended is written to the descriptor REPORT as JSON:
{"status": n}, {"signal": n} or {"ended": a reason}.

    starter ── outside   waits, and holds the process namespace together
                 └── init    process 1 of the namespace, with its own /tmp and /proc; ends everything in it
                       └── program    and whatever that starts

Other programs load this file to confine what they run: `outside`, `private_places`, `fork`, `wait_for`, `end_all`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

MAX_TASKS = 512
"""Processes and threads that the program may have at once."""
PRIVATE_TMP = "size=64m,mode=1777"
GRACE_SECONDS = 1.0
"""From SIGTERM to SIGKILL."""
MOUNTS, HOSTNAME, IPC = 0x00020000, 0x04000000, 0x08000000

_LOOK_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1
_NEW_USER, _NEW_PROCESSES = 0x10000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_SLAVE = 0x2, 0x4, 0x8, 0x4000, 0x80000
_REASONS = {
    errno.ENOEXEC: "it is no program: its first line must name an interpreter, such as #!/bin/sh",
    errno.ENOENT: "the interpreter that its first line names does not exist",
}
libc = ctypes.CDLL(None, use_errno=True)


class Ended(Exception):
    """The program was ended, or could not be started; the text is a predicate: `did not finish within 2 s`."""


def main(parent: int, report: int, file: int, seconds: float, argv: list[str]) -> None:
    """Run the program confined, and write to `report` how it ended."""
    os.set_inheritable(report, False)
    try:
        init = outside(parent, lambda: _init(report, file, seconds, argv))
    except OSError as error:
        _answer(report, ended=f"this machine does not allow a new process namespace ({error.strerror})")
    else:
        os.waitpid(init, 0)


def _init(report: int, file: int, seconds: float, argv: list[str]) -> NoReturn:
    """Process 1: run the program, end what it leaves, and report."""
    answer: dict[str, Any]
    try:
        private_places(MOUNTS, PRIVATE_TMP)
        os.mkdir("/tmp/run", 0o700)  # noqa: S108
        os.chdir("/tmp/run")  # noqa: S108
        answer = _run(file, seconds, argv)
    except Ended as error:
        answer = {"ended": f"it {error}"}
    except OSError as error:
        answer = {"ended": f"its private directories cannot be made ({error.strerror})"}
    end_all()
    _answer(report, **answer)
    os._exit(0)


def _run(file: int, seconds: float, argv: list[str]) -> dict[str, int]:
    """Run the program to its end. Raises `Ended`."""
    failed, fail = os.pipe()
    program = fork(lambda: _become(file, argv, fail))
    os.close(fail)
    with os.fdopen(failed, "rb") as pipe:
        if number := pipe.read():
            raise Ended(f"cannot be started: {_REASONS.get(int(number), os.strerror(int(number)))}")
    status = wait_for(program, MAX_TASKS, seconds)
    return {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {"status": os.WEXITSTATUS(status)}


def _become(file: int, argv: list[str], fail: int) -> NoReturn:
    """Become the program; where that fails, write the number of the error."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    os.set_inheritable(file, True)  # an interpreter opens it once more
    try:
        os.execve(file, argv, os.environ)  # noqa: S606
    except OSError as error:
        os.write(fail, str(error.errno).encode())
    os._exit(127)


def _answer(report: int, **answer: Any) -> None:
    os.write(report, json.dumps(answer).encode())


# Confinement


def outside(parent: int, init: Callable[[], NoReturn]) -> int:
    """Start process 1 of a new process namespace; it ends with this process, and this process with `parent`.

    SIGTERM ends all of it: this process ends after process 1, and that after every other one of the namespace.
    """
    end_with_parent(lambda: os.getppid() == parent)
    user, group = os.geteuid(), os.getegid()
    call("unshare", libc.unshare(_NEW_PROCESSES if user == 0 else _NEW_PROCESSES | _NEW_USER))
    if user != 0:  # only in a user namespace may another user than root make a process namespace
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    alive, held = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.close(held)
        end_with_parent(lambda: not select.select([alive], [], [], 0)[0])
        init()
    os.close(alive)
    signal.signal(signal.SIGTERM, lambda *_: _kill(child))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return child


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def private_places(namespaces: int, tmp: str) -> None:
    """Give process 1 namespaces of its own, with its own /proc and /tmp, and let it be the first to lack memory."""
    call("unshare", libc.unshare(namespaces))
    # What others unmount goes here as well, or this would hold it; no mount of this namespace goes there.
    mount("none", "/", None, _MS_REC | _MS_SLAVE)
    mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, tmp)  # noqa: S108
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    # Runs before any number of processes that the program starts, so that it can end them. Not inherited.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def fork(program: Callable[[], NoReturn]) -> int:
    """Start a process that leads a session of its own; process 1 learns of its end by SIGCHLD."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        program()
    return child


def wait_for(program: int, max_tasks: int, seconds: float = float("inf")) -> int:
    """Wait until the program has ended; return its status. Raises `Ended` past the limit of time or tasks."""
    end = time.monotonic() + seconds
    status = _status_by(program, max_tasks, end)
    if status is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program, signal.SIGTERM)
        _status_by(program, max_tasks, end + GRACE_SECONDS)
        raise Ended(f"did not finish within {seconds:g} s")
    return status


def _status_by(program: int, max_tasks: int, end: float) -> int | None:
    """Return the status of the program if it ends in time; reap all other processes that end meanwhile."""
    while time.monotonic() < end:
        signal.sigtimedwait({signal.SIGCHLD}, _LOOK_SECONDS)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == program:
                    return ended[1]
        if _tasks() > max_tasks:
            raise Ended(f"started more than {max_tasks} processes at once")
    return None


def _tasks() -> int:
    """Count the processes and threads of the namespace."""
    count = 0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has just ended
            count += os.stat(f"/proc/{name}/task").st_nlink - 2
    return count


def end_all() -> None:
    """Kill every process of the namespace except this one, and wait until all are gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


# The kernel


def end_with_parent(has_parent: Callable[[], bool]) -> None:
    """Let the kernel kill this process when the one that started it ends."""
    call("prctl", libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    if not has_parent():
        os._exit(1)


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    words = [word and os.fsencode(word) for word in (source, target, kind)]
    call(f"mount {target}", libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(data) if data else None))


def call(what: str, result: int) -> None:
    """Raise the error of a function of the C library that failed."""
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


if __name__ == "__main__":
    _parent, _report, _file, _seconds, *_argv = sys.argv[1:]
    main(int(_parent), int(_report), int(_file), float(_seconds), _argv)
