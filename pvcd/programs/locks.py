"""Locks that programs hold together with the process that started them, on one machine.

A program that inherits the descriptor of a lock keeps it locked until it has ended, even if its starter is killed. Once
the next process has the lock, no program of the former holder can act any more. The kernel releases a lock with the
last process that has it open, so nothing can be left locked.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

POLL_SECONDS = 0.05


class ProgramLocks:
    """The locks in one file, each of which is a byte at the hash of its name, so that none leaves anything behind."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @contextlib.asynccontextmanager
    async def hold(self, name: str, seconds: float) -> AsyncIterator[int]:
        """Lock a name, and yield the descriptor for programs to inherit.

        Raises `TimeoutError` if others, or programs that they have started, keep it locked for that long.
        """
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            end = time.monotonic() + seconds
            while not _lock(descriptor, name):
                if time.monotonic() >= end:
                    raise TimeoutError
                await asyncio.sleep(POLL_SECONDS)
            yield descriptor
        finally:
            os.close(descriptor)


def _lock(descriptor: int, name: str) -> bool:
    """Lock the byte of a name for this opening of the file; False if another one has it."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 2
    # The kernel's struct flock: l_type, l_whence, l_start, l_len and l_pid.
    request = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except BlockingIOError:
        return False
    return True
