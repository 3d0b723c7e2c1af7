"""The runs of hooks, each a file: what is still to be run, also after the daemon has ended, and what came of the rest.

They stand in a directory of this machine, which only the daemons' user may read, since hooks are told all arguments.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pvcd.declare.operations import FAIL, POST
from pvcd.errors import Refused
from pvcd.process import ProcessIdentity
from pvcd.sitehooks.execution import Ending
from pvcd.sitehooks.folder import place_of

log = logging.getLogger(__name__)
MAX_RUNS = 1000
_NUMBERS = itertools.count()
MAX_TOLD = 256 * 1024
"""Bytes of what a hook is told, above which it is not kept, so that the run cannot be repeated."""
MAX_ATTEMPTS = 3
"""After so many, one that always ends with its daemon is left alone."""


class HookRun(BaseModel):
    """One run of one hook."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(default_factory=lambda: uuid4().hex[:12])
    event: str
    operation: str
    phase: str
    hook: str
    place: str
    """The daemon that runs it."""
    process: ProcessIdentity
    """The process that does."""
    state: Literal["waiting", "running", "ok", "failed"] = "waiting"
    attempt: int = 1
    queued: float
    number: int = Field(default_factory=lambda: next(_NUMBERS))
    """Tells which of those that were queued at the same time comes first."""
    seconds: float | None = None
    """How long it took."""
    status: int | None = None
    signal: int | None = None
    sentence: str = ""
    """What came of it, if it was not good."""
    stdout: str = ""
    stderr: str = ""
    sha256: str = ""
    """Of the file that was run."""
    told: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Such as `vm-start.post.d/50-notify`."""
        return f"{place_of(self.operation, self.phase)}/{self.hook}"

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in ("ok", "failed")

    def ended(self, ending: Ending) -> Self:
        """The run with its end."""
        values = {name: value for name, value in asdict(ending).items() if name != "refused"}
        return self.model_copy(update={**values, "state": "failed" if ending.sentence else "ok"})


class Runs:
    """The files of one machine. All of its functions may block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._complained = False

    def save(self, run: HookRun) -> None:
        """Write a run; where that cannot be, it is only run."""
        if len(json.dumps(run.told)) > MAX_TOLD:
            run = run.model_copy(update={"told": None})
        path = self._path(run)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(run.model_dump_json().encode())
            part.replace(path)
            if run.is_over:
                self._forget_oldest()
        except OSError as error:
            if not self._complained:
                log.warning("the runs of hooks are not kept in %s: %s", self._directory, error.strerror)
            self._complained = True

    def all(self) -> list[HookRun]:
        """Those that are kept, the newest first."""
        return list(filter(None, map(_read, reversed(self._files()))))

    def find(self, id: str) -> HookRun:
        """A run by its id, or by as much of its beginning as tells it from others."""
        found = [run for run in self.all() if run.id.startswith(id)]
        if not found:
            raise Refused(f"There is no run of a hook whose id begins with {id!r}: see pvcd hooks log.")
        if len(found) > 1:
            raise Refused(f"There are {len(found)} runs whose id begins with {id}: write more of it.")
        return found[0]

    def adopt(self, place: str, process: ProcessIdentity) -> list[HookRun]:
        """Runs of this daemon that a process has not ended which is over itself: they are ours now, oldest first.

        Raises `BlockingIOError` while another process does the same.
        """
        with self._alone():
            adopted = []
            for run in reversed(self.all()):
                if run.place == place and run.phase in (POST, FAIL) and not run.is_over and run.process.has_ended():
                    again = run.model_copy(update={"process": process, "attempt": run.attempt + 1})
                    if again.attempt > MAX_ATTEMPTS or run.told is None:
                        again = again.model_copy(update={"state": "failed", "sentence": "its daemon ended with it"})
                    else:
                        adopted.append(again)
                    self.save(again)
            return adopted

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process of this machine at a time."""
        try:
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            yield
            return
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(directory)

    def _path(self, run: HookRun) -> Path:
        return self._directory / f"{run.queued:017.6f}-{run.number:09d}-{run.id}.json"

    def _files(self) -> list[Path]:
        try:
            return sorted(self._directory.glob("*.json"))
        except OSError:
            return []

    def _forget_oldest(self) -> None:
        for path in self._files()[:-MAX_RUNS]:
            path.unlink(missing_ok=True)


def _read(path: Path) -> HookRun | None:
    try:
        return HookRun.model_validate_json(path.read_bytes())
    except FileNotFoundError:  # it was just removed
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s is no run of a hook: %s", path, str(error).splitlines()[0])
        return None
