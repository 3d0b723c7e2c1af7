"""What the primary opens to tell guests who they are, and how it keeps that up."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from pvcd import Component, ComponentKey, Context, Handlers, Primary, PvcdError, Requeue, Role
from pvcd_plugins.provisioner.metadata import Describe, Metadata
from pvcd_plugins.provisioner.metadata.settings import MetadataSettings
from pvcd_plugins.vm.service import NETWORK_INDEX

log = logging.getLogger(__name__)
METADATA: ComponentKey[Metadata] = ComponentKey("metadata")
primary = Handlers(scope="primary")


def component(describe: Describe) -> Component[Metadata]:
    """The metadata API of a primary, which tells a VM what `describe` says of it."""

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
                log.warning("the metadata address vanishes by itself only: %s", error)

    return Component(METADATA, open_metadata, roles=(Role.PRIMARY,), needs=(NETWORK_INDEX,), fake=fake_metadata)


@contextlib.asynccontextmanager
async def fake_metadata(context: Context) -> AsyncIterator[Metadata]:
    """One that answers nobody."""
    from pvcd_plugins.provisioner.metadata.fake import FakeMetadata

    fake = FakeMetadata(context.clock)
    try:
        yield fake
    finally:
        await fake.close()


@primary.on(Primary)
async def answer(context: Context, lease: Primary) -> Requeue | None:
    """Hold the address. Like the gateways it vanishes with our session, for then another one may have it."""
    if not context.settings.of(MetadataSettings).enabled:
        return None
    seconds = context.settings.zookeeper.session_timeout
    await context[METADATA].hold(seconds)
    return Requeue(seconds / 3)
