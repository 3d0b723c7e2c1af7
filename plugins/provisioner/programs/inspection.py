"""The door to the inspection of scripts, in processes of their own, a few at a time: see syntax.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any, Protocol

from pvcd import Component, ComponentKey, Context, Role, TimedOut, programs
from pvcd_plugins.provisioner.programs import syntax
from pvcd_plugins.provisioner.programs.syntax import Verdict

MAX_CONCURRENT = 2
TIMEOUT_SECONDS = 5.0 * syntax.CPU_SECONDS
"""Longer than the CPU time because the machine may be busy."""


class Inspection(Protocol):
    """Inspects scripts."""

    async def look(self, source: str) -> Verdict:
        """Compile a script, which is not run, and return the verdict."""


class OutsideInspection:
    """Inspect scripts in processes of their own."""

    def __init__(self) -> None:
        self._semaphore = asyncio.Semaphore(MAX_CONCURRENT)

    async def look(self, source: str) -> Verdict:
        """Compile a script in an isolated Python."""
        argv = [sys.executable, "-I", "-S", syntax.__file__]
        async with self._semaphore:
            try:
                result = await programs.run(argv, timeout=TIMEOUT_SECONDS, input=source.encode(), check=False)
            except TimedOut:
                raise TimedOut(
                    f"Cannot compile the script within {TIMEOUT_SECONDS:g} s. Make it smaller or try again."
                ) from None
        if result.returncode:
            return Verdict(mistake="it is too large or nested too deeply to be compiled", warnings=[])
        verdict: Verdict = json.loads(result.stdout)
        return verdict


class InsideInspection:
    """Inspect scripts in this process, for tests with harmless scripts."""

    async def look(self, source: str) -> Verdict:
        """Compile a script here."""
        return syntax.look(source)


@contextlib.asynccontextmanager
async def open_inspection(context: Context) -> AsyncIterator[Inspection]:
    """Inspect scripts in processes of their own."""
    yield OutsideInspection()


@contextlib.asynccontextmanager
async def open_fake(context: Context) -> AsyncIterator[Inspection]:
    """Inspect the scripts of a simulated cluster."""
    yield InsideInspection()


INSPECTION: ComponentKey[Inspection] = ComponentKey("script-inspection")
COMPONENTS: list[Component[Any]] = [
    Component(INSPECTION, open_inspection, roles=(Role.API, Role.WORKER), fake=open_fake)
]
