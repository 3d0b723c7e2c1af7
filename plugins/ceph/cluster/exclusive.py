"""Locks for changes of pools and volumes, among all processes of this machine and the programs that they start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from weakref import WeakValueDictionary

from pvcd import Locked, programs
from pvcd_plugins.ceph.cluster import CephError
from pvcd_plugins.ceph.cluster.programs import HELD


class Exclusive:
    """One lock per pool or volume, which the programs that are started meanwhile keep until they have ended.

    The next change of the volume waits for the programs of a process that was killed or has given up.
    """

    def __init__(self, file: Path, deadline: float) -> None:
        self._deadline = deadline
        self._machine = programs.ProgramLocks(file)
        self._here: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def __call__(self, *names: str) -> AsyncIterator[None]:
        """Hold the locks of these pools or images; raises `Locked` when others keep one past the deadline."""
        async with contextlib.AsyncExitStack() as held:
            descriptors = [await self._take(held, name) for name in sorted({*names})]
            token = HELD.set((*HELD.get(), *descriptors))
            try:
                yield
            finally:
                HELD.reset(token)

    async def _take(self, held: contextlib.AsyncExitStack, name: str) -> int:
        lock = self._here.setdefault(name, asyncio.Lock())
        try:
            async with asyncio.timeout(self._deadline):
                await held.enter_async_context(lock)
            return await held.enter_async_context(self._machine.hold(name, self._deadline))
        except TimeoutError:
            raise Locked(f"Cannot change {name!r}: another request is changing it. Try again later.") from None
        except OSError as error:
            raise CephError(f"Cannot change {name!r}: cannot lock it ({error.strerror}).") from error
