"""What a worker opens to build VMs: where the scripts run, and what lets go of what earlier workers had mapped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from pvcd import Component, ComponentKey, Context, PvcdError, Refused, Role, Task
from pvcd_plugins.ceph.service import MAPPING
from pvcd_plugins.provisioner import volumes
from pvcd_plugins.provisioner.installation import Installation

log = logging.getLogger(__name__)
INSTALLATION: ComponentKey[Installation] = ComponentKey("installation")
UNMAP_ORPHANS: ComponentKey[None] = ComponentKey("unmap-orphans")


@contextlib.asynccontextmanager
async def open_installation(context: Context) -> AsyncIterator[Installation]:
    """Children of this process."""
    from pvcd_plugins.provisioner.installation.child import ChildInstallation

    yield ChildInstallation()


@contextlib.asynccontextmanager
async def fake_installation(context: Context) -> AsyncIterator[Installation]:
    """That of a simulated cluster."""
    from pvcd_plugins.provisioner.installation.fake import FakeInstallation

    yield FakeInstallation(context.clock)


@contextlib.asynccontextmanager
async def open_unmap_orphans(context: Context) -> AsyncIterator[None]:
    """Beside everything else, unmap here what was mapped for tasks that another machine has undone meanwhile."""
    at_work = asyncio.ensure_future(unmap_orphans(context))
    try:
        yield
    finally:
        at_work.cancel()
        await asyncio.gather(at_work, return_exceptions=True)


async def unmap_orphans(context: Context) -> None:
    """Unmap what no task claims that is not over; each claims its volumes before it maps them."""
    try:
        mapped = await context[MAPPING].mapped()
        facts: list[volumes.Fact] = [{"pool": each.pool, "volume": each.volume} for each in mapped]
        await context.store.catch_up()
        tasks = [task for task in context.store.all(Task) if not task.is_over]
        claimed = [fact for task in tasks for step in task.steps for fact in step.journal.get("mapped", ())]
        unclaimed = [fact for fact in facts if fact not in claimed]
        await volumes.unmap_all(context[MAPPING], unclaimed, context.clock)
    except Refused as error:
        log.info("%s", error)
    except PvcdError as error:
        log.warning("What was mapped for tasks that are over is still mapped: %s", error)
    else:
        for fact in unclaimed:
            log.warning("%(pool)s/%(volume)s was mapped for a task that is over, and is unmapped", fact)


COMPONENTS: list[Component[Any]] = [
    Component(INSTALLATION, open_installation, roles=(Role.WORKER,), fake=fake_installation),
    Component(UNMAP_ORPHANS, open_unmap_orphans, roles=(Role.WORKER,), needs=(MAPPING,)),
]
