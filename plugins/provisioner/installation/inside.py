"""Run an installation script: a program of its own, of the standard library only, with namespaces that end with it.

    python -I -u inside.py CONFINE PARENT

CONFINE is the file of `pvcd.programs.confine`, and PARENT the process without which this one ends. Standard input is
one line of JSON, the job, and later one more line: go. Standard output is the script's own, and standard error reports
to the starter: {"init": PID}, {"files": [the number of each file system]}, {"failed": null or a sentence}.

    starter ── outside   waits, and holds the process namespace together
                 └── init    process 1 of the namespace: mounts, waits, ends everything, writes back
                       └── keeper    makes what the script sees of this machine, and enters it: see view.py
                             └── process 1 of the script's own process namespace
                                   └── script    install(), and whatever that starts
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import linecache
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING or __name__ != "__main__":
    from pvcd import programs
    from pvcd_plugins.provisioner.installation import view

    confine = programs.confine
else:

    def _load(name, file):
        spec = importlib.util.spec_from_file_location(name, file)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    confine = _load("confine", sys.argv.pop(1))
    view = _load("view", os.path.join(os.path.dirname(__file__), "view.py"))

NAME = "script"
"""The script's name in tracebacks."""
MAX_TASKS = 4096
"""Processes and threads that a script may have at once."""
PRIVATE_TMP = "size=1g,mode=1777"
ROOT = "/tmp/root"  # noqa: S108
"""Where the root directory of the script is made, in a /tmp that only process 1 and the keeper see."""
DRIVERS = {"ext2": "ext4", "ext3": "ext4"}
"""The drivers of filesystems, where the one of their name cannot map the owners of files."""
MAX_SENTENCE = 8000
"""Its characters: more than those of any secret, which is masked before the sentence is cut for a task."""
RETURNED = "returned"

_MNT_DETACH = 0x2


class Failure(Exception):
    """The installation cannot go on; the text is a sentence."""


def main(parent: int) -> None:
    """Read the job, start process 1 of the namespaces, and wait for it."""
    answers = os.dup(2)  # which no program inherits
    os.dup2(1, 2)
    job = json.loads(sys.stdin.buffer.readline())
    init = confine.outside(parent, lambda: _init(job, answers))
    _answer(answers, init=init)
    os.waitpid(init, 0)


def _init(job: dict[str, Any], answers: int) -> NoReturn:
    """Process 1: mount, run the script, end what it leaves, write back, and report."""
    # Not before the starter knows which process to end.
    if sys.stdin.buffer.readline() != b"go\n":
        os._exit(1)
    failed, held = None, list[int]()
    try:
        trees = view.open_trees(job["files"])
        confine.private_places(confine.MOUNTS | confine.IPC | confine.HOSTNAME, PRIVATE_TMP)
        os.chdir("/tmp")  # noqa: S108
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # While they are held, the script cannot release them for others to use.
        held += [os.open(disk["device"], os.O_RDONLY | os.O_CLOEXEC) for disk in job["disks"] if disk["device"]]
        _answer(answers, files=mount_all(job["disks"], job["temporary_directory"]))
        _run(job, trees, view.user_namespace())
    except Failure as error:
        failed = str(error)
    except confine.Ended as error:
        failed = f"The script {error} and was ended."
    except OSError as error:
        failed = f"Cannot make the namespaces of the script: {error.strerror or error}."
    confine.end_all()
    for descriptor in held:
        os.close(descriptor)
    view.make_nodes(job["temporary_directory"])
    devices = {os.fsencode(disk["device"]): disk["disk_id"] for disk in job["disks"] if disk["mountpoint"]}
    for sentence in unmount_all(job["temporary_directory"], devices):
        failed = failed or sentence
    _answer(answers, failed=failed and failed[:MAX_SENTENCE])
    os._exit(0)


# Disks


def mount_all(disks: list[dict[str, Any]], root: str) -> list[int]:
    """Mount the disks with a mountpoint, "/" first; return the device numbers of the script's files."""
    os.mkdir(root, 0o755)
    files = [os.stat(root).st_dev]
    mounted = [disk for disk in disks if disk["mountpoint"]]
    for disk in sorted(mounted, key=lambda disk: [part for part in disk["mountpoint"].split("/") if part]):
        with _directory(root, disk["mountpoint"]) as target:
            try:
                kind = DRIVERS.get(disk["filesystem"], disk["filesystem"])
                confine.mount(disk["device"], f"/proc/self/fd/{target}", kind, 0, disk["mount_data"])
            except OSError as error:
                place = f"{disk['disk_id']!r} ({disk['filesystem']}) at {disk['mountpoint']!r}"
                raise Failure(f"Cannot mount disk {place}: {error.strerror}.") from None
        files.append(os.stat(root + disk["mountpoint"]).st_dev)
    return files


@contextlib.contextmanager
def _directory(root: str, path: str) -> Iterator[int]:
    """Open a directory below the root, made if missing; never follow a symbolic link among the VM's files."""
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
        raise Failure(
            f"Cannot mount a disk at {path!r}: not a directory of its disk, or reached by a symbolic link."
        ) from None
    finally:
        os.close(current)


def unmount_all(root: str, devices: dict[bytes, str]) -> Iterator[str]:
    """Write everything back and unmount it, the last one first; yield a sentence for each disk that fails."""
    for path, device in reversed([each for each in _mounts() if (each[0] + b"/").startswith(os.fsencode(root) + b"/")]):
        if device in devices:
            try:
                # A mount hidden below another one is written back when it is released.
                with contextlib.suppress(FileNotFoundError):
                    _write_back(path)
            except OSError as error:
                yield f"Cannot write all data to disk {devices[device]!r}: {error.strerror}."
        # A mount that is still in use, as by a loop device, is released together with that.
        confine.libc.umount2(path, _MNT_DETACH)


def _mounts() -> list[tuple[bytes, bytes]]:
    """Return the path and the source of each mount; the kernel writes blanks and the like as octal digits."""
    with open("/proc/self/mountinfo", "rb") as file:
        lines = [line.split(b" ") for line in file]
    words = [(line[4], line[line.index(b"-") + 2]) for line in lines]
    return [(_unescaped(path), _unescaped(source)) for path, source in words]


def _unescaped(word: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), word)


def _write_back(path: bytes) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        confine.call("syncfs", confine.libc.syncfs(descriptor))
    finally:
        os.close(descriptor)


# The script


def _run(job: dict[str, Any], trees: dict[str, view.Tree], users: int) -> None:
    """Run the script to its end. Raises `Failure` or `Ended` unless `install()` has returned."""
    reading, writing = os.pipe()
    keeper = confine.fork(lambda: _keeper(job, trees, users, writing))
    os.close(writing)
    status = confine.wait_for(keeper, MAX_TASKS)
    confine.end_all()
    with os.fdopen(reading, "rb") as pipe:
        words = pipe.read(MAX_SENTENCE * 4).decode(errors="replace")
    if os.WIFSIGNALED(status):
        raise Failure(f"The script was killed by {signal.Signals(os.WTERMSIG(status)).name}.")
    if words != RETURNED:
        raise Failure(
            words or f"The script ended itself with status {os.WEXITSTATUS(status)} before install() returned."
        )


def _keeper(job: dict[str, Any], trees: dict[str, view.Tree], users: int, writing: int) -> NoReturn:
    """Enter the view of the script, start process 1 of its process namespace, and end as the script has ended."""
    reading, report = os.pipe()
    try:
        confine.call("unshare", confine.libc.unshare(confine.MOUNTS))
        view.build(ROOT, job, trees, users, PRIVATE_TMP)
        view.enter(ROOT)
        view.separate(users, network=job["network"])
        view.limit(bytes.fromhex(job["calls"]))
        close_all(but={0, 1, 2, writing, reading, report})  # the script may look into this process and the next one
        if os.fork() == 0:
            view.settle()
            _first(job, writing, report)
    except BaseException as error:  # nothing of this process may go on as process 1 does
        reason = f"{error.strerror} ({error.filename})" if isinstance(error, OSError) else repr(error)
        os.write(writing, f"Cannot show the script its part of this machine: {reason}.".encode()[:MAX_SENTENCE])
        os.write(report, b"256")  # exit status 1
        os._exit(1)
    os.close(writing)
    os.close(report)
    os.wait()
    status = int(os.read(reading, 16) or signal.SIGKILL)  # no report of a process that was killed
    if os.WIFSIGNALED(status):
        with contextlib.suppress(OSError):  # SIGKILL is as it is
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def close_all(but: set[int]) -> None:
    """Close all descriptors but these."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in but:
            with contextlib.suppress(OSError):  # that of the list itself
                os.close(descriptor)


def _first(job: dict[str, Any], writing: int, report: int) -> NoReturn:
    """Process 1 of the script's process namespace: with its end, all others of the namespace end."""
    script = confine.fork(lambda: _script(job, writing))
    ended = 0
    while ended != script:
        ended, status = os.wait()
    os.write(report, str(status).encode())
    os._exit(0)


def _script(job: dict[str, Any], writing: int) -> NoReturn:
    """Run the script in its own process, and write how it went."""
    writing = os.dup2(writing, 3, inheritable=False)
    close_all(but={0, 1, 2, writing})
    sys.argv = [NAME]
    try:
        call(job["script"], job["kwargs"])
        sentence = RETURNED
    except BaseException as error:  # a script may raise anything
        traceback.print_exception(error.with_traceback(_own_part(error)))
        sentence = describe(error)
    with contextlib.suppress(Exception):  # it may have closed them
        sys.stdout.flush()
        sys.stderr.flush()
    os.write(writing, sentence.encode(errors="replace")[: MAX_SENTENCE * 4])
    os._exit(0)


def call(text: str, kwargs: dict[str, Any], **names: Any) -> None:
    """Call the `install()` of a script, with `names` among its globals."""
    module = ModuleType(NAME)
    module.__dict__.update(names, __file__=NAME)
    sys.modules[NAME] = module
    linecache.cache[NAME] = (len(text), None, text.splitlines(True), NAME)
    exec(compile(text, NAME, "exec"), module.__dict__)  # noqa: S102 - the purpose of this program
    install = getattr(module, "install", None)
    if not callable(install):
        raise TypeError("there is no function install()")
    install(**kwargs)


def describe(error: BaseException) -> str:
    """Return a sentence about what a script raised, with its line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == NAME]
    if isinstance(error, SyntaxError) and error.filename == NAME:
        lines = [error.lineno]
    where = f"in line {lines[-1]}" if lines else "before its first line"
    if isinstance(error, SystemExit):
        return f"The script ended itself {where}: sys.exit({error.code!r})."[:MAX_SENTENCE]
    last = traceback.format_exception_only(error)[-1].strip()
    return f"The script failed {where}: {last}"[:MAX_SENTENCE]


def _own_part(error: BaseException) -> Any:
    """Return the traceback from the script's own first line on."""
    part = error.__traceback__
    while part is not None and part.tb_frame.f_code.co_filename != NAME:
        part = part.tb_next
    return part


def _answer(descriptor: int, **answer: Any) -> None:
    os.write(descriptor, json.dumps(answer, ensure_ascii=False).encode(errors="replace") + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
