"""Runs one program that can leave nothing behind: a program of its own, of the standard library only.

    python -I -S confined.py PARENT REPORT FILE SECONDS NAME ARGUMENT...

PARENT is the process without which it ends. The program is the open file of the descriptor FILE, so that it is the one
that was looked at, whatever stands at its path by now. How it ended is written to the descriptor REPORT as JSON:
{"status": n}, {"signal": n} or {"ended": a sentence}.

    starter ── outside   waits
                 └── init    process 1 of a namespace, with a /tmp and a /proc of its own; ends everything in it
                       └── program    and whatever that starts
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
"""Processes and threads that there may be at once."""
PRIVATE_TMP = "size=64m,mode=1777"
GRACE_SECONDS = 1.0
"""From SIGTERM to SIGKILL."""

_LOOK_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1
_NEW_USER, _NEW_PROCESSES, _NEW_MOUNTS = 0x10000000, 0x20000000, 0x00020000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_SLAVE = 0x2, 0x4, 0x8, 0x4000, 0x80000
_WHY = {
    errno.ENOEXEC: "it is no program: its first line must name an interpreter, such as #!/bin/sh",
    errno.ENOENT: "the interpreter that its first line names is not there",
}
_libc = ctypes.CDLL(None, use_errno=True)


class Ended(Exception):
    """The program was ended, or never began; the text says why."""


def main(parent: int, report: int, file: int, seconds: float, argv: list[str]) -> None:
    """Make the namespace of processes, and wait for the first one in it."""
    end_with_parent(lambda: os.getppid() == parent)
    os.set_inheritable(report, False)
    try:
        _own_processes()
    except OSError as error:
        _tell(report, ended=f"this machine lets it make no namespace of processes ({error.strerror})")
        return
    alive, held = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(held)
        end_with_parent(lambda: not select.select([alive], [], [], 0)[0])
        _init(report, file, seconds, argv)
    os.waitpid(init, 0)


def _own_processes() -> None:
    """Whoever is not root is itself in a namespace of users, since only there it may."""
    user, group = os.geteuid(), os.getegid()
    call("unshare", _libc.unshare(_NEW_PROCESSES if user == 0 else _NEW_PROCESSES | _NEW_USER))
    if user != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def _init(report: int, file: int, seconds: float, argv: list[str]) -> NoReturn:
    """Process 1: let the program run, end what is left of it, and say how it went."""
    answer: dict[str, Any]
    try:
        _own_places()
        answer = _run(file, seconds, argv)
    except Ended as error:
        answer = {"ended": str(error)}
    except OSError as error:
        answer = {"ended": f"the place for it to run in cannot be made ({error.strerror})"}
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    _tell(report, **answer)
    os._exit(0)


def _own_places() -> None:
    call("unshare", _libc.unshare(_NEW_MOUNTS))
    mount("none", "/", None, _MS_REC | _MS_SLAVE)
    mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, PRIVATE_TMP)  # noqa: S108
    os.mkdir("/tmp/run", 0o700)  # noqa: S108
    os.chdir("/tmp/run")  # noqa: S108
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    # Ahead of any number of processes that the program starts, so that it can end them. Not inherited.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def _run(file: int, seconds: float, argv: list[str]) -> dict[str, int]:
    """Let the program run to its end. Raises `Ended` when it does not begin, takes too long or becomes too many."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    told, tell = os.pipe()
    program = os.fork()
    if program == 0:
        _become(file, argv, tell)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        if number := pipe.read():
            reason = _WHY.get(int(number), os.strerror(int(number)))
            raise Ended(f"it cannot be started: {reason}")
    status = _await(program, seconds)
    return {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {"status": os.WEXITSTATUS(status)}


def _become(file: int, argv: list[str], tell: int) -> NoReturn:
    """Be the program; if that cannot be, tell the number of the error."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.set_inheritable(file, True)  # an interpreter opens it once more
    try:
        os.execve(file, argv, os.environ)  # noqa: S606
    except OSError as error:
        os.write(tell, str(error.errno).encode())
    os._exit(127)


def _await(program: int, seconds: float) -> int:
    """Wait until the program has ended; returns its status."""
    end = time.monotonic() + seconds
    status = _ended_by(program, end)
    if status is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program, signal.SIGTERM)
        _ended_by(program, end + GRACE_SECONDS)
        raise Ended(f"it did not finish within {seconds:g} s")
    return status


def _ended_by(program: int, end: float) -> int | None:
    """The status of the program, if it ends in time; whatever else ends meanwhile is waited for."""
    while time.monotonic() < end:
        signal.sigtimedwait({signal.SIGCHLD}, _LOOK_SECONDS)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == program:
                    return ended[1]
        if _tasks() > MAX_TASKS:
            raise Ended(f"it started more than {MAX_TASKS} processes at once")
    return None


def _tasks() -> int:
    """How many processes and threads there are."""
    count = 0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has just ended
            count += os.stat(f"/proc/{name}/task").st_nlink - 2
    return count


# The kernel


def end_with_parent(has_parent: Callable[[], bool]) -> None:
    """Let the kernel kill this process when the one that started it ends."""
    call("prctl", _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    if not has_parent():
        os._exit(1)


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    words = [word and word.encode() for word in (source, target, kind)]
    call(f"mount {target}", _libc.mount(*words, ctypes.c_ulong(flags), data.encode() if data else None))


def call(what: str, result: int) -> None:
    """Raise the error of a function of the C library that failed."""
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


def _tell(report: int, **answer: Any) -> None:
    os.write(report, json.dumps(answer).encode())


if __name__ == "__main__":
    _parent, _report, _file, _seconds, *_argv = sys.argv[1:]
    main(int(_parent), int(_report), int(_file), float(_seconds), _argv)
