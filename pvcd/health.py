"""Health: what plugins look at to say how the cluster is, and the endpoint that tells it.

    async def enough_room(context: Context) -> Health:
        return Health("warning", "Pool vms is almost full.")

    HealthCheck("room", "Whether there is room for volumes", enough_room)

All checks run side by side at each request. One that raises or does not end is itself reported as failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from pvcd.errors import PvcdError
from pvcd.http.routes import Routes

if TYPE_CHECKING:
    from pvcd.context import Context

log = logging.getLogger(__name__)
CHECK_SECONDS = 2.0
State = Literal["ok", "warning", "failed"]
WORSE = ("ok", "warning", "failed")


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


class HealthView(BaseModel):
    """What one check found."""

    name: str
    about: str = Field(description="what it looks at")
    state: State
    sentence: str


class OverallHealth(BaseModel):
    """How the cluster is: as the worst of its checks."""

    state: State
    checks: list[HealthView]


routes = Routes("/api/v1/health", tag="General")


@routes.get()
async def get_health(context: Context) -> OverallHealth:
    """How the cluster is, as each plugin sees its part of it: ok, warning or failed. A check may take two seconds."""
    checks = context.registry.health_checks
    views = await asyncio.gather(*(_look(context, check) for check in checks))
    worst = max((view.state for view in views), key=WORSE.index, default="ok")
    return OverallHealth(state=worst, checks=views)


async def _look(context: Context, check: HealthCheck) -> HealthView:
    found = await _found(context, check)
    return HealthView(name=check.name, about=check.doc, state=found.state, sentence=found.sentence)


async def _found(context: Context, check: HealthCheck) -> Health:
    looking = asyncio.ensure_future(_run(context, check))
    try:
        ended, _ = await asyncio.wait([looking], timeout=CHECK_SECONDS)
        if not ended or looking.cancelled():
            return Health("failed", f"The check did not end by itself within {CHECK_SECONDS:g} s.")
        return looking.result()
    except PvcdError as error:
        return Health("failed", error.sentence)
    except Exception as error:
        plugin = context.registry.owner("health_checks", check.name)
        log.exception("the health check %s of %s failed", check.name, plugin)
        return Health("failed", f"The check itself failed: {type(error).__name__}: {error}.")
    finally:
        looking.cancel()


async def _run(context: Context, check: HealthCheck) -> Health:
    found = await check.check(context)
    if not isinstance(found, Health):
        raise TypeError(f"it returned {found!r}, which is no Health")
    return found


async def _link(context: Context) -> Health:
    """Whether ZooKeeper is there."""
    since = context.store.stale_since
    if since is None:
        return Health("ok", "ZooKeeper answers.")
    away = context.clock.time() - since
    return Health("failed", f"ZooKeeper has not answered for {away:.0f} s: nothing can be changed.")


async def _plugins(context: Context) -> Health:
    """Whether all plugins could be used."""
    complaints = context.registry.complaints
    if complaints:
        return Health("warning", " ".join(complaints))
    return Health("ok", f"All {len(context.registry.plugins)} plugins are in use.")


CHECKS = (
    HealthCheck("plugins", "The plugins of this API server", _plugins),
    HealthCheck("zookeeper", "The link of this API server to ZooKeeper", _link),
)
