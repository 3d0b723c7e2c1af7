"""What runs a script: a program of its own, of the standard library only, with namespaces that end with it.

    python -I -u inside.py PARENT     the process that started it, without which it ends

Its standard input is one line of JSON, the job, and later one more line: go. Standard output is the script's own, and
standard error is for its starter: {"init": PID}, {"files": [the number of each file system]}, {"failed": null or why}.

    starter ── outside   waits, and holds the process namespace together
                 └── init    process 1 of the namespaces: mounts, waits, ends everything, writes back
                       └── script    install(), and whatever that starts
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import linecache
import os
import re
import resource
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NoReturn

NAME = "script"
"""What the script is called in tracebacks."""
MAX_TASKS = 4096
"""Processes and threads that a script may have at once."""
PRIVATE_TMP = "size=1g,mode=1777"
MAX_SENTENCE = 500

_LOOK_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1
_NEW_PROCESSES = 0x20000000
_NEW_MOUNTS_IPC_HOSTNAME = 0x00020000 | 0x08000000 | 0x04000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_SLAVE = 0x2, 0x4, 0x8, 0x4000, 0x80000
_MNT_DETACH = 0x2

_libc = ctypes.CDLL(None, use_errno=True)


class Ended(Exception):
    """The installation cannot go on; its text is a sentence."""


def main(arguments: list[str]) -> None:
    """Make the namespace of processes, and wait for the first one in it."""
    _end_with_parent(lambda: os.getppid() == int(arguments[0]))
    answers = os.dup(2)  # which no program inherits
    os.dup2(1, 2)
    job = json.loads(sys.stdin.buffer.readline())
    _call("unshare", _libc.unshare(_NEW_PROCESSES))
    alive, held = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(held)
        _end_with_parent(lambda: not select.select([alive], [], [], 0)[0])
        # Not before the starter knows what to wait for.
        if sys.stdin.buffer.readline() != b"go\n":
            os._exit(1)
        _init(job, answers)
    _answer(answers, init=init)
    os.waitpid(init, 0)


def _init(job: dict[str, Any], answers: int) -> NoReturn:
    """Process 1: mount, let the script run, end what is left of it, write back, and say how it went."""
    failed = None
    try:
        _own_namespaces()
        _answer(answers, files=mount_all(job["disks"], job["temporary_directory"]))
        _run(job)
    except Ended as error:
        failed = str(error)
    except OSError as error:
        failed = f"The place for the script to run in cannot be made: {error.strerror or error}."
    _kill_all()
    devices = {os.fsencode(disk["device"]): disk["disk_id"] for disk in job["disks"] if disk["mountpoint"]}
    for sentence in unmount_all(job["temporary_directory"], devices):
        failed = failed or sentence
    _answer(answers, failed=failed and failed[:MAX_SENTENCE])
    os._exit(0)


def _own_namespaces() -> None:
    _call("unshare", _libc.unshare(_NEW_MOUNTS_IPC_HOSTNAME))
    # What others unmount goes here as well, or this would hold it; nothing of ours goes there.
    _mount("none", "/", None, _MS_REC | _MS_SLAVE)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, PRIVATE_TMP)  # noqa: S108
    os.chdir("/tmp")  # noqa: S108
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # The first to go when memory ends.
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    # Ahead of any number of processes that a script starts, so that it can end them. Not inherited.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


# Disks


def mount_all(disks: list[dict[str, Any]], root: str) -> list[int]:
    """Mount what has a mountpoint, "/" first; returns the device numbers that files of the script have."""
    os.mkdir(root, 0o755)
    files = [os.stat(root).st_dev]
    mounted = [disk for disk in disks if disk["mountpoint"]]
    for disk in sorted(mounted, key=lambda disk: [part for part in disk["mountpoint"].split("/") if part]):
        with _directory(root, disk["mountpoint"]) as target:
            try:
                _mount(disk["device"], f"/proc/self/fd/{target}", disk["filesystem"], 0, disk["mount_data"])
            except OSError as error:
                place = f"{disk['disk_id']} ({disk['filesystem']}) cannot be mounted at {disk['mountpoint']}"
                raise Ended(f"The disk {place}: {error.strerror}.") from None
        files.append(os.stat(root + disk["mountpoint"]).st_dev)
    return files


@contextlib.contextmanager
def _directory(root: str, path: str) -> Iterator[int]:
    """A directory below the root, made if it must be; never one that a symbolic link of the VM's files leads to."""
    current = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in filter(None, path.split("/")):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=current)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = inner
        yield current
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise Ended(f"The mountpoint {path} is no directory of its disk, or leads over a symbolic link.") from None
    finally:
        os.close(current)


def unmount_all(root: str, devices: dict[bytes, str]) -> Iterator[str]:
    """Write everything back and unmount it, the last one first; a sentence for each that cannot be written."""
    for path, device in reversed([each for each in _mounts() if (each[0] + b"/").startswith(os.fsencode(root) + b"/")]):
        if device in devices:
            try:
                # One that the script has hidden below another is written back when it goes.
                with contextlib.suppress(FileNotFoundError):
                    _write_back(path)
            except OSError as error:
                yield f"What was written to {devices[device]} is not all there: {error.strerror}."
        # One that is held all the same, as by a loop device, goes as soon as that does.
        _libc.umount2(path, _MNT_DETACH)


def _mounts() -> list[tuple[bytes, bytes]]:
    """The path and the source of each mount, in which the kernel writes blanks and the like as octal digits."""
    with open("/proc/self/mountinfo", "rb") as file:
        lines = [line.split(b" ") for line in file]
    words = [(line[4], line[line.index(b"-") + 2]) for line in lines]
    return [(_unescaped(path), _unescaped(source)) for path, source in words]


def _unescaped(word: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), word)


def _write_back(path: bytes) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("syncfs", _libc.syncfs(descriptor))
    finally:
        os.close(descriptor)


# The script


def _run(job: dict[str, Any]) -> None:
    """Let the script run to its end. Raises `Ended` unless `install()` has returned."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    told, tell = os.pipe()
    script = os.fork()
    if script == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.close(told)
        _script(job, tell)
    os.close(tell)
    status = _await(script)
    _kill_all()
    with os.fdopen(told, "rb") as pipe:
        told_last = pipe.read(MAX_SENTENCE * 8).decode(errors="replace")
    if os.WIFSIGNALED(status):
        raise Ended(f"The script was ended by {signal.Signals(os.WTERMSIG(status)).name}.")
    if told_last != "returned":
        raise Ended(
            told_last or f"The script ended itself with status {os.WEXITSTATUS(status)} before install() returned."
        )


def _await(script: int) -> int:
    """Wait until the script has ended, and for whatever else ends here; returns its status."""
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, _LOOK_SECONDS)
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitpid(-1, os.WNOHANG):
                if ended[0] == script:
                    return ended[1]
                if ended[0] == 0:
                    break
        if _tasks() > MAX_TASKS:
            raise Ended(f"The script started more than {MAX_TASKS} processes at once and was ended.")


def _tasks() -> int:
    """How many processes and threads there are."""
    count = 0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has just ended
            count += os.stat(f"/proc/{name}/task").st_nlink - 2
    return count


def _kill_all() -> None:
    """End every process of the namespace but this one, and wait until all are gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _script(job: dict[str, Any], tell: int) -> NoReturn:
    """Run the script, in its own process, and tell how it went."""
    os.setsid()
    tell = os.dup2(tell, 3, inheritable=False)
    os.closerange(4, 64)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = [NAME]
    try:
        call(job["script"], job["kwargs"])
        sentence = "returned"
    except BaseException as error:  # a script may raise whatever it likes
        traceback.print_exception(error.with_traceback(_own_part(error)))
        sentence = describe(error)
    with contextlib.suppress(Exception):  # what it did to its own streams
        sys.stdout.flush()
        sys.stderr.flush()
    os.write(tell, sentence.encode(errors="replace")[: MAX_SENTENCE * 4])
    os._exit(0)


def call(text: str, kwargs: dict[str, Any], **names: Any) -> None:
    """Call the `install()` of a script, with `names` among its global ones."""
    module = ModuleType(NAME)
    module.__dict__.update(names, __file__=NAME)
    sys.modules[NAME] = module
    linecache.cache[NAME] = (len(text), None, text.splitlines(True), NAME)
    exec(compile(text, NAME, "exec"), module.__dict__)  # noqa: S102 - which is what all this is for
    install = getattr(module, "install", None)
    if not callable(install):
        raise TypeError("there is no function install()")
    install(**kwargs)


def describe(error: BaseException) -> str:
    """What a script raised, as a sentence with its line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == NAME]
    if isinstance(error, SyntaxError) and error.filename == NAME:
        lines = [error.lineno]
    where = f"in line {lines[-1]}" if lines else "before its first line"
    if isinstance(error, SystemExit):
        return f"The script ended itself {where}: sys.exit({error.code!r}).".replace("\n", " ")[:MAX_SENTENCE]
    last = traceback.format_exception_only(error)[-1].strip()
    return f"The script failed {where}: {' '.join(last.split())}"[:MAX_SENTENCE]


def _own_part(error: BaseException) -> Any:
    """The traceback from the script's own first line on."""
    part = error.__traceback__
    while part is not None and part.tb_frame.f_code.co_filename != NAME:
        part = part.tb_next
    return part


# The kernel


def _end_with_parent(has_parent: Any) -> None:
    """Let the kernel kill this process when the one that started it ends."""
    _call("prctl", _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    if not has_parent():
        os._exit(1)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [word and os.fsencode(word) for word in (source, target, kind)]
    _call(f"mount {target}", _libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(data) if data else None))


def _call(what: str, result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


def _answer(descriptor: int, **answer: Any) -> None:
    os.write(descriptor, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
