"""The endpoint that tells how the cluster is: all checks run side by side at each request.

A check that raises or does not end is itself reported as failed.
"""

from __future__ import annotations

import asyncio
import logging

from pydantic import BaseModel, Field

from pvcd.declare.context import Context
from pvcd.declare.health import Health, HealthCheck, State
from pvcd.errors import PvcdError
from pvcd.http.routes import Routes

log = logging.getLogger(__name__)
CHECK_SECONDS = 2.0
WORSE = ("ok", "warning", "failed")


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
    checks = context.declared(HealthCheck)
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
        log.exception("the health check %s of %s failed", check.name, context.declarations.owner(check))
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
    complaints = context.declarations.complaints
    return Health("warning", " ".join(complaints)) if complaints else Health("ok", "All plugins are in use.")


CHECKS = (
    HealthCheck("plugins", "The plugins of this API server", _plugins),
    HealthCheck("zookeeper", "The link of this API server to ZooKeeper", _link),
)
