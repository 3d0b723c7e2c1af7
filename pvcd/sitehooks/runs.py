"""The runs of site hooks, each a file: pending ones, which survive the daemon, and the results of the others.

They are in a directory of this machine that only the daemons' user may read, as they contain all arguments.
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
MAX_DOCUMENT_BYTES = 256 * 1024
"""A larger document is not kept, so that its run cannot be repeated."""
MAX_ATTEMPTS = 3
"""A run that ended with its daemon as often as this is not repeated."""


class HookRun(BaseModel):
    """One run of one site hook."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(default_factory=lambda: uuid4().hex[:12])
    event: str
    operation: str
    phase: str
    hook: str
    place: str
    """The daemon that runs it."""
    process: ProcessIdentity
    """The process of that daemon."""
    state: Literal["waiting", "running", "ok", "failed"] = "waiting"
    attempt: int = 1
    queued: float
    number: int = Field(default_factory=lambda: next(_NUMBERS))
    """Orders runs that were queued at the same time."""
    seconds: float | None = None
    """Its duration."""
    status: int | None = None
    signal: int | None = None
    sentence: str = ""
    """The failure; empty if there was none."""
    stdout: str = ""
    stderr: str = ""
    sha256: str = ""
    """The hash of the file."""
    document: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Such as `vm-start.post.d/50-notify`."""
        return f"{place_of(self.operation, self.phase)}/{self.hook}"

    @property
    def is_over(self) -> bool:
        """True once it has ended."""
        return self.state in ("ok", "failed")

    def ended(self, ending: Ending) -> Self:
        """Return the run with its end."""
        values = {name: value for name, value in asdict(ending).items() if name != "refused"}
        return self.model_copy(update={**values, "state": "failed" if ending.sentence else "ok"})


class Runs:
    """The files of one machine. All functions may block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._complained = False

    def save(self, run: HookRun) -> None:
        """Write a run; if that fails, it is only logged."""
        if len(json.dumps(run.document)) > MAX_DOCUMENT_BYTES:
            run = run.model_copy(update={"document": None})
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
                log.warning("cannot keep the runs of site hooks in %s: %s", self._directory, error.strerror)
            self._complained = True

    def all(self) -> list[HookRun]:
        """Return all runs, the newest first."""
        return list(filter(None, map(_read, reversed(self._files()))))

    def find(self, id: str) -> HookRun:
        """Find a run by its id or the unique beginning of it. Raises `Refused`."""
        found = [run for run in self.all() if run.id.startswith(id)]
        if not found:
            raise Refused(f"There is no run of a site hook whose id begins with {id!r}: see pvcd hooks log.")
        if len(found) > 1:
            raise Refused(f"Cannot find the run {id!r}: {len(found)} ids begin with it. Write more of the id.")
        return found[0]

    def adopt(self, place: str, process: ProcessIdentity) -> list[HookRun]:
        """Take over the pending runs of earlier processes of this daemon; return them, oldest first.

        Raises `BlockingIOError` while another process does the same.
        """
        with self._alone():
            adopted = []
            for run in reversed(self.all()):
                if run.place == place and run.phase in (POST, FAIL) and not run.is_over and run.process.has_ended():
                    again = run.model_copy(update={"process": process, "attempt": run.attempt + 1})
                    if again.attempt > MAX_ATTEMPTS or run.document is None:
                        again = again.model_copy(update={"state": "failed", "sentence": "its daemon ended with it"})
                    else:
                        adopted.append(again)
                    self.save(again)
            return adopted

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the directory for this process."""
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
    except FileNotFoundError:  # removed meanwhile
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s is not a run of a site hook: %s", path, str(error).splitlines()[0])
        return None
