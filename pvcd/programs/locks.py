"""Locks that programs hold together with the process that started them, on one machine.

A program that inherits the descriptor of a lock keeps it locked until it has ended, even if its starter is killed. Once
the next process has the lock, no program of the former holder can act any more. The kernel releases a lock with the
last process that has it open, so nothing can be left locked.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

POLL_SECONDS = 0.05


class ProgramLocks:
    """The locks below a directory, each of which is a directory itself that exists only while it is held."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextlib.asynccontextmanager
    async def hold(self, name: str, seconds: float) -> AsyncIterator[int]:
        """Lock a name, and yield the descriptor for programs to inherit.

        Raises `TimeoutError` if others, or programs that they have started, keep it locked for that long.
        """
        place, end = self._directory / name, time.monotonic() + seconds
        while (descriptor := take(place)) is None:
            if time.monotonic() >= end:
                raise TimeoutError
            await asyncio.sleep(POLL_SECONDS)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            _remove(place)


def take(place: Path) -> int | None:
    """Create and lock a directory, which its last holder may remove meanwhile; None if it is locked."""
    while True:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(place)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _remove(place: Path) -> None:
    """Remove the directory of a lock, unless a program still holds it or another process has taken it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(place)):
                place.rmdir()
        finally:
            os.close(descriptor)
