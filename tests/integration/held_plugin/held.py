"""A plugin for tests: each step of building a VM waits, or has its worker killed, where a test says so.

The places of a step are `before`, `intended` (after each intent), `after` (it has acted, but that is not yet written
down) and `undo`. In the directory of the settings, `<VM> <place> <step>.at` has a line for each time that it was
reached, and `.hold` lets it wait as long as the file is there. `<VM> <step>.kill` holds seconds after which the worker
is killed, counted from the beginning of the step.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from pvcd import PLUGIN_API_1, Outcome, Run, Section, SettingsSection, Step, hookimpl
from pvcd_plugins.provisioner import steps

REQUIRES_PLUGIN_API = PLUGIN_API_1


class Held(Section):
    """pvc.held: where tests say what waits"""

    directory: Path


@hookimpl
def register_settings() -> list[SettingsSection]:
    return [SettingsSection("held", Held)]


def directory(run: Run) -> Path:
    return run.context.settings.of(Held).directory


async def reached(run: Run, place: str) -> None:
    """Record that a place is reached, and wait there while the test holds it."""
    at = directory(run) / f"{run.task.subject} {place}.at"
    write(at)
    while is_there(at.with_suffix(".hold")):  # noqa: ASYNC110 (it is another process that does)
        await asyncio.sleep(0.02)


def write(file: Path) -> None:
    with file.open("a") as lines:
        lines.write("reached\n")


def is_there(file: Path) -> bool:
    return file.exists()


def let_be_killed(run: Run, step: str) -> None:
    file = directory(run) / f"{run.task.subject} {step}.kill"
    if file.exists():
        seconds = float(file.read_text())
        file.unlink()
        asyncio.get_running_loop().call_later(seconds, os.kill, os.getpid(), signal.SIGKILL)


def held(step: Step) -> Step:
    """A step that waits."""

    async def act(run: Run) -> Outcome:
        await reached(run, f"before {step.name}")
        let_be_killed(run, step.name)
        intend = run.intend

        async def intended(**facts: Any) -> None:
            await intend(**facts)
            await reached(run, f"intended {step.name}")

        run.intend = intended  # type: ignore[method-assign]
        outcome = await step.run(run)
        await reached(run, f"after {step.name}")
        return outcome

    async def undo(run: Run) -> None:
        await reached(run, f"undo {step.name}")
        await step.undo(run)

    return replace(step, run=act, undo=undo)


steps.STEPS[:] = map(held, steps.STEPS)
