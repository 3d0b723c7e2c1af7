"""A plugin for tests: tasks of the kind `build` make three files, and each step waits where the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from pvcd import PLUGIN_API_1, Outcome, Run, Step, hookimpl

REQUIRES_PLUGIN_API = PLUGIN_API_1


def note(run: Run, line: str) -> None:
    with Path(run.task.values["directory"], "notes").open("a") as notes:
        notes.write(f"{line}\n")


def is_held(run: Run, what: str) -> bool:
    return Path(run.task.values["directory"], f"hold {what}").exists()


async def held(run: Run, what: str) -> None:
    """Wait while the test holds this place."""
    while is_held(run, what):  # noqa: ASYNC110 (it is another process that does)
        await asyncio.sleep(0.02)


def step(name: str, order: int) -> Step:
    def thing(run: Run) -> Path:
        return Path(run.task.values["directory"], f"{run.task.subject}-{name}")

    async def make(run: Run) -> Outcome:
        await run.intend(path=str(thing(run)))
        note(run, f"make {thing(run).name}")
        touch(thing(run))
        await run.log(f"made {thing(run).name}")
        await held(run, f"make {name}")
        return Outcome("changed", "Made.")

    async def unmake(run: Run) -> None:
        path = Path(run.journal["path"])
        note(run, f"unmake {path.name}")
        await held(run, f"unmake {name}")
        remove(path)

    return Step("build", name, order, f"The {name} step", make, unmake)


def touch(path: Path) -> None:
    path.touch()


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)


@hookimpl
def register_steps() -> Iterable[Step]:
    return [step(name, order) for order, name in enumerate(("first", "second", "third"))]
