"""What a piece of code reaches outside of its process, as Python's audit events tell it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

PLACES = ("/etc", "/dev", "/run", "/var")
"""Where the state of a machine is; code and temporary files are elsewhere."""
ACTS = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "subprocess.Popen")
ACTS += ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty")
FILES = ("open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink")
FILES += ("os.chmod", "os.chown", "os.truncate", "shutil.rmtree")

_watching: list[list[str]] = []


@contextlib.contextmanager
def reached() -> Iterator[list[str]]:
    """Collect, in all threads, each connection, program and file of `PLACES` that is opened during the block."""
    if not _watching:
        _watching.append([])
        sys.addaudithook(_hear)  # for good: it cannot be removed
    found = _watching[0]
    found.clear()
    _watching.append(found)
    try:
        yield found
    finally:
        _watching.pop()


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if len(_watching) < 2:
        return
    if event in ACTS:
        _watching[0].append(f"{event} {arguments!r:.200}")
    elif event in FILES and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path.startswith(tuple(f"{place}/" for place in PLACES)):
            _watching[0].append(f"{event} {path}")
