"""Health checks: functions of plugins that look at the state of the cluster.

async def enough_room(context: Context) -> Health:
    return Health("warning", "Pool vms is almost full.")

HealthCheck("room", "Free space for volumes", enough_room)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from pvcd.declare.context import Context

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Health:
    """The result of a check: `ok`, `warning` or `failed`, and a sentence for people."""

    state: State
    sentence: str


@dataclass(frozen=True)
class HealthCheck:
    """One check, run by an API process: of records, which are in memory, or through a door with a deadline."""

    name: str
    doc: str
    """The subject of the check, in some words."""
    check: Callable[[Context], Awaitable[Health]]
