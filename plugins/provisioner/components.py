"""Where scripts run, what unmaps orphaned volumes, and the metadata API of a primary."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pvcd import Component, ComponentKey, Context, PvcdError, Refused, Role, Task, settings_file
from pvcd_plugins.ceph.service import MAPPING, CephSettings
from pvcd_plugins.provisioner import volumes
from pvcd_plugins.provisioner.installation import Installation
from pvcd_plugins.provisioner.metadata import Describe, Metadata
from pvcd_plugins.provisioner.records import GuestMetadata
from pvcd_plugins.provisioner.settings import ProvisionerSettings
from pvcd_plugins.vm.service import NETWORK_INDEX, VM

log = logging.getLogger(__name__)
INSTALLATION: ComponentKey[Installation] = ComponentKey("installation")
UNMAP_ORPHANS: ComponentKey[None] = ComponentKey("unmap-orphans")
METADATA: ComponentKey[Metadata] = ComponentKey("metadata")


@contextlib.asynccontextmanager
async def open_installation(context: Context) -> AsyncIterator[Installation]:
    """Run scripts in child processes."""
    from pvcd_plugins.provisioner.installation.child import ChildInstallation

    provisioner, ceph = context.settings.of(ProvisionerSettings), context.settings.of(CephSettings)
    secrets = [settings_file(), ceph.conf, Path(context.settings.api.ssl.key_file or os.devnull)]
    network = provisioner.script_network == "host"
    yield ChildInstallation(files=provisioner.script_files, hidden=secrets, network=network)


@contextlib.asynccontextmanager
async def fake_installation(context: Context) -> AsyncIterator[Installation]:
    """Run the scripts of a simulated cluster."""
    from pvcd_plugins.provisioner.installation.fake import FakeInstallation

    yield FakeInstallation(context.clock)


@contextlib.asynccontextmanager
async def open_unmap_orphans(context: Context) -> AsyncIterator[None]:
    """Unmap, in the background, what is mapped here for tasks that another machine has undone meanwhile."""
    at_work = asyncio.ensure_future(unmap_orphans(context))
    try:
        yield
    finally:
        at_work.cancel()
        await asyncio.gather(at_work, return_exceptions=True)


async def unmap_orphans(context: Context) -> None:
    """Unmap the volumes that no unfinished task claims. A task claims its volumes before it maps them."""
    try:
        mapped = await context[MAPPING].mapped()
        facts: list[volumes.Fact] = [{"pool": each.pool, "volume": each.volume} for each in mapped]
        await context.store.catch_up()
        tasks = [task for task in context.store.all(Task) if not task.is_over]
        claimed = [fact for task in tasks for step in task.steps for fact in step.journal.get("mapped", ())]
        orphaned = [fact for fact in facts if fact not in claimed]
        await volumes.unmap_all(context[MAPPING], orphaned, context.clock)
    except Refused as error:
        log.info("%s", error)
    except PvcdError as error:
        log.warning("cannot unmap volumes of ended tasks: %s", error)
    else:
        for fact in orphaned:
            log.warning("unmapped orphaned volume %(pool)s/%(volume)s of an ended task", fact)


async def describe(context: Context, vm: VM) -> GuestMetadata:
    """Return the metadata of a guest; it is empty for a VM that the provisioner did not build."""
    return context.store.get(GuestMetadata, vm.uuid) or GuestMetadata(uuid=vm.uuid)


def metadata_component(describe: Describe) -> Component[Metadata]:
    """Return the metadata API of a primary, which gives to a guest what `describe` returns."""

    @contextlib.asynccontextmanager
    async def open_metadata(context: Context) -> AsyncIterator[Metadata]:
        from pvcd_plugins.provisioner.metadata.server import MetadataServer

        server = MetadataServer(context, describe)
        try:
            yield server
        finally:
            try:
                await server.close()
            except PvcdError as error:
                log.warning("cannot remove the metadata address; it expires with the session: %s", error)

    return Component(METADATA, open_metadata, roles=(Role.PRIMARY,), needs=(NETWORK_INDEX,), fake=fake_metadata)


@contextlib.asynccontextmanager
async def fake_metadata(context: Context) -> AsyncIterator[Metadata]:
    """Hold the address of a simulated cluster, where no guest asks."""
    from pvcd_plugins.provisioner.metadata.fake import FakeMetadata

    fake = FakeMetadata(context.clock)
    try:
        yield fake
    finally:
        await fake.close()


COMPONENTS: list[Component[Any]] = [
    Component(INSTALLATION, open_installation, roles=(Role.WORKER,), fake=fake_installation),
    Component(UNMAP_ORPHANS, open_unmap_orphans, roles=(Role.WORKER,), needs=(MAPPING,), in_memory=True),
    metadata_component(describe),
]
