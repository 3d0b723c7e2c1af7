"""Scripts are looked at in a process of its own, a few at a time: see syntax.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any, Protocol

from pvcd import Component, ComponentKey, Context, Role, TimedOut, programs
from pvcd_plugins.provisioner import syntax
from pvcd_plugins.provisioner.syntax import Verdict

AT_ONCE = 2
SECONDS = 5.0 * syntax.SECONDS
"""It may have to wait for its turn on a busy machine."""


class Inspection(Protocol):
    """Looks at scripts."""

    async def look(self, source: str) -> Verdict:
        """What there is to say of a script, which is never run."""


class OutsideInspection:
    """Looks from outside of this process."""

    def __init__(self) -> None:
        self._semaphore = asyncio.Semaphore(AT_ONCE)

    async def look(self, source: str) -> Verdict:
        """Let another Python compile it, alone and without our environment."""
        argv = [sys.executable, "-I", "-S", syntax.__file__]
        async with self._semaphore:
            try:
                result = await programs.run(argv, timeout=SECONDS, input=source.encode(), check=False)
            except TimedOut:
                raise TimedOut(
                    f"The script was not compiled within {SECONDS:g} s: make it smaller, or try again."
                ) from None
        if result.returncode:
            return Verdict(mistake="it is too large or nested too deeply to be compiled", warnings=[])
        verdict: Verdict = json.loads(result.stdout)
        return verdict


class InsideInspection:
    """Looks in this process: for tests of what is no worse than a wrong script."""

    async def look(self, source: str) -> Verdict:
        """Compile it here."""
        return syntax.look(source)


@contextlib.asynccontextmanager
async def open_inspection(context: Context) -> AsyncIterator[Inspection]:
    """The real one."""
    yield OutsideInspection()


@contextlib.asynccontextmanager
async def open_fake(context: Context) -> AsyncIterator[Inspection]:
    """That of a simulated cluster."""
    yield InsideInspection()


INSPECTION: ComponentKey[Inspection] = ComponentKey("script-inspection")
COMPONENTS: list[Component[Any]] = [
    Component(INSPECTION, open_inspection, roles=(Role.API, Role.WORKER), fake=open_fake)
]
