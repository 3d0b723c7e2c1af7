"""Health: what plugins look at to say how the cluster is.

async def enough_room(context: Context) -> Health:
    return Health("warning", "Pool vms is almost full.")

HealthCheck("room", "Whether there is room for volumes", enough_room)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from pvcd.declare.context import Context

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Health:
    """What a check found: `ok`, `warning` or `failed`, and a sentence for people."""

    state: State
    sentence: str


@dataclass(frozen=True)
class HealthCheck:
    """One look at the cluster, by an API server: at records, which are in memory, or through a door with a deadline."""

    name: str
    doc: str
    """What it looks at, in some words."""
    check: Callable[[Context], Awaitable[Health]]
