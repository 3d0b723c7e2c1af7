"""Duties of the primary: hold the metadata address, and remove the metadata of guests whose VM was removed."""

from __future__ import annotations

from uuid import UUID

from pvcd import Context, Delete, Handlers, Primary, Requeue, retried
from pvcd_plugins.provisioner.components import METADATA
from pvcd_plugins.provisioner.records import GuestMetadata
from pvcd_plugins.provisioner.settings import MetadataSettings
from pvcd_plugins.vm.service import VM

primary = Handlers(scope="primary")


@primary.on(Primary)
async def hold_metadata_address(context: Context, lease: Primary) -> Requeue | None:
    """Hold the address, as gateways are held: it expires with our session, after which another node may have it."""
    if not context.settings.of(MetadataSettings).enabled:
        return None
    seconds = context.settings.zookeeper.session_timeout
    await context[METADATA].hold(seconds)
    return Requeue(seconds / 3)


@primary.gone(VM)
async def forget(context: Context, vm: VM) -> None:
    """Remove the metadata of a guest together with its VM."""
    await _forget(context, vm.uuid)


@primary.on(GuestMetadata)
async def forget_orphaned(context: Context, metadata: GuestMetadata) -> None:
    """Remove the metadata of a guest whose VM was removed while no node was primary. A VM is written before it."""
    if context.store.get(VM, metadata.uuid) is None:
        await context.store.catch_up()
        await _forget(context, metadata.uuid)


@retried
async def _forget(context: Context, uuid: UUID) -> None:
    metadata = context.store.get(GuestMetadata, uuid)
    if metadata is not None and context.store.get(VM, uuid) is None:
        await context.store.write(Delete(metadata))
