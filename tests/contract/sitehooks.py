"""Benches for the suite of the site's hooks: functions, and programs in a directory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from pvcd.declare.context import Context
from pvcd.declare.operations import SiteHooks
from pvcd.sitehooks import COMPONENT
from pvcd.sitehooks.envelope import Envelope
from pvcd.sitehooks.fake import FakeHooks, Script
from pvcd.sitehooks.runs import HookRun, Runs

LIMIT = 60.0


class Bench(Protocol):
    """Hooks that record their input."""

    settings: dict[str, Any]
    """The section pvc.hooks of the settings."""

    def add(self, place: str, refuses: str = "") -> None:
        """A hook for an operation and phase, such as `vm-start.pre`."""

    def told(self) -> list[Any]:
        """Return the inputs of the hooks, in order."""

    def open(self, context: Context) -> contextlib.AbstractAsyncContextManager[SiteHooks]:
        """Open the door."""


class FakeBench:
    """Hooks that are functions."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self._scripts: dict[str, Script] = {}
        self._told: list[Any] = []
        self._hooks = FakeHooks(self._scripts)

    def add(self, place: str, refuses: str = "") -> None:
        def script(told: Envelope) -> str | None:
            self._told.append(json.loads(json.dumps(told)))
            return refuses or None

        self._scripts[place] = script

    def told(self) -> list[Any]:
        return self._told

    def open(self, context: Context) -> contextlib.AbstractAsyncContextManager[SiteHooks]:
        return self._hooks.open(context)


class FolderBench:
    """Hooks that are programs. Their directory is not below /tmp, because each hook has a private /tmp."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "hooks"
        self.directory.mkdir(mode=0o755)
        self.file = directory / "told"
        self.runs = Runs(directory / "runs")
        self.settings: dict[str, Any] = {"directory": str(self.directory), "records": str(directory / "runs")}

    def add(self, place: str, refuses: str = "") -> None:
        answer = f"echo {shlex.quote(refuses)} >&2; exit 1" if refuses else "exit 0"
        self.script(f"{place}.d/50-fake", f"(cat; echo) >>{shlex.quote(str(self.file))}\n{answer}\n")

    def script(self, place: str, text: str, *, interpreter: str = "/bin/sh", mode: int = 0o755) -> Path:
        """Any program."""
        path = self.directory / place
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.write_text(f"#!{interpreter}\n{text}")
        path.chmod(mode)
        return path

    def told(self) -> list[Any]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def ended(self) -> list[HookRun]:
        """The runs that are over, the oldest first."""
        return [run for run in reversed(self.runs.all()) if run.is_over]

    def open(self, context: Context) -> contextlib.AbstractAsyncContextManager[SiteHooks]:
        return COMPONENT.open(context)


@pytest.fixture
def folder() -> Iterator[FolderBench]:
    """Programs."""
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        yield FolderBench(directory)
    finally:
        shutil.rmtree(directory)


async def until(holds: Any, limit: float = LIMIT) -> None:
    """Return when a condition holds."""
    async with asyncio.timeout(limit):
        while not holds():  # noqa: ASYNC110 - a condition of other processes
            await asyncio.sleep(0.01)
