"""The hooks directory: what is in it, what of that runs and why the rest does not.

Hooks are the executable files `<operation>.<phase>.d/NN-name`, in the byte order of their names. Whatever may be
changed by others than root or this process's own user is never run. It is looked at and opened in one go, each
directory in the one before, so that what is run is what was looked at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pvcd.errors import did_you_mean

SUFFIX = ".d"
NAME = re.compile(r"[0-9]{2}-[a-z0-9_-]+(\.[a-z]+)?")
MAX_HOOKS = 100
"""Of one operation and phase."""

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def place_of(operation: str, phase: str) -> str:
    """The name of the directory of some hooks, such as `vm-start.pre.d`."""
    return f"{operation}.{phase}{SUFFIX}"


class Unsafe(Exception):
    """Why something of the hooks directory must not be run: the end of a sentence that begins with its path."""


@dataclass(frozen=True)
class Entry:
    """A file of the hooks directory."""

    place: str
    """Such as `vm-start.pre.d/50-licence`."""
    operation: str = ""
    phase: str = ""
    reason: str | None = None
    """Why it does not run; None of one that does."""


@dataclass(frozen=True)
class Hook:
    """One hook, open."""

    name: str
    path: str
    file: int
    """The descriptor, which whoever opened the hooks closes."""
    unsafe: str | None = None
    """Why it must not be run."""


def scan(root: Path, phases: Mapping[str, tuple[str, ...]]) -> list[Entry]:
    """Every file of the directory, and whether it runs; `phases` are those of each operation there is."""
    if not root.exists():
        return []
    entries: list[Entry] = []
    for folder in sorted(root.iterdir()):
        if not folder.is_dir():
            if not folder.name.startswith(("README", ".")):
                entries.append(Entry(folder.name, reason="it is no directory such as vm-start.pre.d"))
            continue
        operation, phase = _parts(folder.name)
        reason = _misplaced(folder.name, operation, phase, phases)
        if reason:
            entries += [Entry(f"{folder.name}/{name}", reason=reason) for name in _names(folder)] or [
                Entry(folder.name, reason=reason)
            ]
        else:
            entries += _entries(root, operation, phase)
    return entries


def _entries(root: Path, operation: str, phase: str) -> Iterator[Entry]:
    folder = root / place_of(operation, phase)
    try:
        with opened(root, operation, phase) as hooks:
            reasons = {hook.name: hook.unsafe for hook in hooks}
    except Unsafe as error:
        reasons = dict.fromkeys(_names(folder), str(error))
    for name in _names(folder):
        reason = reasons[name] if name in reasons else _skipped(folder / name)
        yield Entry(f"{folder.name}/{name}", operation, phase, reason)


def _parts(folder: str) -> tuple[str, str]:
    operation, _, phase = folder.removesuffix(SUFFIX).rpartition(".")
    return operation, phase


def _misplaced(folder: str, operation: str, phase: str, phases: Mapping[str, tuple[str, ...]]) -> str | None:
    if not folder.endswith(SUFFIX) or not operation:
        return "its directory must be named like vm-start.pre.d"
    if operation not in phases:
        return f"there is no operation {operation!r}: {did_you_mean(operation, phases)}".rstrip(".")
    if phase not in phases[operation]:
        valid = ", ".join(phases[operation])
        return f"{operation} has no phase {phase!r}, only {valid}"
    return None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _skipped(path: Path) -> str:
    if not NAME.fullmatch(path.name):
        return "its name must have the form 50-name or 50-name.sh, in small letters"
    if path.is_dir():
        return "it is a directory"
    return "it is not executable: chmod +x switches it on"


@contextlib.contextmanager
def opened(root: Path, operation: str, phase: str) -> Iterator[list[Hook]]:
    """The hooks of an operation and phase, in their order. Raises `Unsafe` when others may change the directory."""
    with contextlib.ExitStack() as stack:
        try:
            folder = _open_folder(root / place_of(operation, phase), stack)
        except FileNotFoundError:
            yield []
            return
        names = sorted(filter(NAME.fullmatch, os.listdir(folder)), key=os.fsencode)
        if len(names) > MAX_HOOKS:
            raise Unsafe(f"holds more than {MAX_HOOKS} hooks")
        hooks = [_open_hook(f"{root}/{place_of(operation, phase)}", name, folder, stack) for name in names]
        yield [hook for hook in hooks if hook]


def _open_folder(path: Path, stack: contextlib.ExitStack) -> int:
    """A directory that nobody else may change, nor any above it."""
    real = path.parent.resolve() / path.name
    current = os.open("/", _FLAGS | os.O_DIRECTORY)
    stack.callback(os.close, current)
    for depth, name in enumerate(real.parts[1:], 2):
        place = Path(*real.parts[:depth])
        try:
            current = os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=current)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Unsafe(f"cannot be used: {place} {_odd(error)}") from None
        stack.callback(os.close, current)
        found = os.fstat(current)
        # In a sticky directory, such as /tmp, nobody can move what belongs to us.
        if danger := _danger(found, allowed=stat.S_ISVTX if place != real else 0):
            raise Unsafe(f"cannot be used: {place} {danger}")
    return current


def _open_hook(folder: str, name: str, at: int, stack: contextlib.ExitStack) -> Hook | None:
    """A file that is to be run; None for one that is switched off."""
    path = f"{folder}/{name}"
    try:
        file = os.open(name, _FLAGS, dir_fd=at)
    except FileNotFoundError:  # it was removed just now
        return None
    except OSError as error:
        return Hook(name, path, -1, _odd(error))
    stack.callback(os.close, file)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        return None if stat.S_ISDIR(found.st_mode) else Hook(name, path, -1, "is no regular file")
    if not found.st_mode & 0o111:
        return None
    return Hook(name, path, file, _danger(found))


def _odd(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "is a symbolic link, which is never followed"
    return f"cannot be opened ({error.strerror})"


def _danger(found: os.stat_result, *, allowed: int = 0) -> str | None:
    """Who else might change a file or directory; with one of the `allowed` bits others may write."""
    if found.st_uid not in (0, os.geteuid()):
        return f"belongs to user {found.st_uid}, not to root or user {os.geteuid()}"
    if found.st_mode & 0o022 and not found.st_mode & allowed:
        return f"may be written by others: chmod go-w it (its mode is {stat.S_IMODE(found.st_mode):04o})"
    if stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return "has a set-user-ID or set-group-ID bit"
    return None
