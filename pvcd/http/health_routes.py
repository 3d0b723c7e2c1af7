"""The endpoint for the health of the cluster: all checks run in parallel at each request.

A check that raises or does not end is reported as failed.
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
    """The result of one check."""

    name: str
    about: str = Field(description="What it checks")
    state: State
    sentence: str


class OverallHealth(BaseModel):
    """The health of the cluster: the worst of its checks."""

    state: State
    checks: list[HealthView]


routes = Routes("/api/v1/health", tag="General")


@routes.get()
async def get_health(context: Context) -> OverallHealth:
    """Show the health of the cluster, as each plugin checks it: ok, warning or failed. A check may take two seconds."""
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
            return Health("failed", f"The check did not finish within {CHECK_SECONDS:g} s.")
        return looking.result()
    except PvcdError as error:
        return Health("failed", error.sentence)
    except Exception as error:
        log.exception("health check %s of %s failed", check.name, context.declarations.owner(check))
        return Health("failed", f"The check itself failed: {type(error).__name__}: {error}.")
    finally:
        looking.cancel()


async def _run(context: Context, check: HealthCheck) -> Health:
    found = await check.check(context)
    if not isinstance(found, Health):
        raise TypeError(f"it must return a Health; got {found!r}")
    return found


async def _link(context: Context) -> Health:
    """Check the link to ZooKeeper."""
    since = context.store.stale_since
    if since is None:
        return Health("ok", "ZooKeeper answers.")
    away = context.clock.time() - since
    return Health("failed", f"ZooKeeper has not answered for {away:.0f} s: no change is possible.")


async def _plugins(context: Context) -> Health:
    """Check that all plugins are in use."""
    complaints = context.declarations.complaints
    return Health("warning", " ".join(complaints)) if complaints else Health("ok", "All plugins are in use.")


CHECKS = (
    HealthCheck("plugins", "The plugins of this API server", _plugins),
    HealthCheck("zookeeper", "The connection of this API server to ZooKeeper", _link),
)
