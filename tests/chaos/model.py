"""The model of a cluster: what each thing should be after the answers that a client got."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

State = Mapping[str, Any] | None
"""Values that a GET of the thing must contain; None for a thing that must not be there."""


class Outcome(StrEnum):
    """What an answer says of a change."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """No answer came, or one that leaves it open: the change may have been made, or still be."""


@dataclass(frozen=True)
class Request:
    """A change, and what each thing that it concerns is afterwards."""

    method: str
    path: str
    effects: Mapping[str, State]
    values: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        values = " ".join(f"{name}={value}" for name, value in self.values.items() if name not in ("xml", "data"))
        return f"{self.method} {self.path} {values}".rstrip()


class Model:
    """The things of one client, by the path of their GET; no other client changes them."""

    def __init__(self) -> None:
        self.possible: dict[str, list[State]] = {}
        """What each thing may be; a thing with more than one such state is left alone until the end."""

    def apply(self, request: Request, outcome: Outcome) -> None:
        """Note the outcome of a request."""
        for path, state in request.effects.items():
            before = self.possible.get(path, [None])
            if outcome is Outcome.ACKNOWLEDGED:
                self.possible[path] = [state]
            elif outcome is Outcome.UNKNOWN:
                self.possible[path] = [*before, state]

    def certain(self, prefix: str, depth: int) -> dict[str, Mapping[str, Any]]:
        """Return the things below a path that are certainly there, by their path of so many parts more."""
        return {
            path: states[0]
            for path, states in self.possible.items()
            if path.startswith(prefix) and path.removeprefix(prefix).count("/") == depth - 1
            if len(states) == 1 and states[0] is not None
        }

    def below(self, path: str) -> list[str]:
        """Return the paths of the things that are parts of a thing."""
        return [each for each in self.possible if each.startswith(f"{path}/")]


class Journal:
    """What was done, in the order in which it was done, and what must not be."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.violations: list[str] = []
        self.counts: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self._begun = time.monotonic()
        self._lock = threading.Lock()

    def note(self, line: str) -> None:
        with self._lock:
            self.lines.append(f"{time.monotonic() - self._begun:7.2f} {line}")

    def count(self, outcome: Outcome) -> None:
        with self._lock:
            self.counts[outcome] += 1

    def violation(self, what: str) -> None:
        self.note(f"VIOLATION {what}")
        with self._lock:
            self.violations.append(what)
