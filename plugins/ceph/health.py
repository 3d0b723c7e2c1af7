"""The health of Ceph, as Ceph itself reports it."""

from __future__ import annotations

from typing import Literal

from pvcd import Context, Health, HealthCheck
from pvcd_plugins.ceph.records import CephStatus

STATES: dict[str, Literal["ok", "warning", "failed"]] = {"HEALTH_OK": "ok", "HEALTH_WARN": "warning"}


async def check(context: Context) -> Health:
    """Return the last health status of Ceph, or why it cannot be reached."""
    known = context.store.get(CephStatus)
    if known is None or known.status is None:
        return Health("warning", (known and known.failed_reason) or "Ceph has not been reached yet.")
    if known.failed_reason:
        return Health("failed", known.failed_reason)
    complaints = "; ".join(known.status.checks.values())
    sentence = f"Ceph reports {known.status.health}{': ' if complaints else ''}{complaints}."
    return Health(STATES.get(known.status.health, "failed"), sentence)


CHECK = HealthCheck("ceph", "The health of Ceph, as the primary last read it", check)
