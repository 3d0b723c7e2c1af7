"""The components of a node for its VMs: the hypervisor, the memory of starts, and its guests' way to Ceph."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from pvcd import Component, ComponentKey, Context, PvcdError, Role
from pvcd_plugins.ceph import service as ceph
from pvcd_plugins.vm.backoff import StartBackoff
from pvcd_plugins.vm.domain import Storage
from pvcd_plugins.vm.hypervisor import Hypervisor, HypervisorError
from pvcd_plugins.vm.hypervisor.libvirt import LibvirtHypervisor
from pvcd_plugins.vm.hypervisor.nonvolatile import NonvolatileState
from pvcd_plugins.vm.records import VM
from pvcd_plugins.vm.settings import VMSettings
from pvcd_plugins.vm.volumes import need_storage

log = logging.getLogger(__name__)

CEPH_SECONDS = 10.0
"""The time that Ceph has to answer before the start of a guest fails."""


def wake_vms(context: Context, uuid: UUID | None) -> None:
    """Have the VM of a guest reconciled, or all VMs."""
    for vm in context.store.all(VM) if uuid is None else [context.store.get(VM, uuid)]:
        if vm is not None:
            context.wake(vm)


@contextlib.asynccontextmanager
async def open_hypervisor(context: Context) -> AsyncIterator[Hypervisor]:
    """Connect to this node's libvirt; the agent also starts while libvirt is not there yet."""
    settings = context.settings.of(VMSettings)
    await asyncio.to_thread(settings.console_directory.mkdir, parents=True, exist_ok=True)
    state = NonvolatileState(settings.state_directory, settings.tpm_directory, settings.console_directory)
    async with listening(context, LibvirtHypervisor(settings.uri, state)) as hypervisor:
        yield hypervisor


@contextlib.asynccontextmanager
async def fake_hypervisor(context: Context) -> AsyncIterator[Hypervisor]:
    """Open the hypervisor of a simulated node."""
    from pvcd_plugins.vm.hypervisor.fake import FakeHypervisor

    async with listening(context, FakeHypervisor(context.clock)) as hypervisor:
        yield hypervisor


@contextlib.asynccontextmanager
async def listening(context: Context, hypervisor: Hypervisor) -> AsyncIterator[Hypervisor]:
    """Open a hypervisor whose events wake the VMs' handlers, and forget the guests whose VMs went while it was away."""
    hypervisor.listen(lambda uuid: wake_vms(context, uuid))
    await hypervisor.open()
    forgetting = asyncio.create_task(forget_removed(context, hypervisor), name="state of removed VMs")
    try:
        yield hypervisor
    finally:
        forgetting.cancel()
        await asyncio.wait([forgetting])
        await hypervisor.close()


async def forget_removed(context: Context, hypervisor: Hypervisor) -> None:
    """Remove the state of the VMs of which the store itself says that they are gone.

    A store without any VM may be a wrong one: a mistake in the settings must not cost the keys in a TPM.
    """
    try:
        gone = [uuid for uuid in await hypervisor.kept() if await context.store.read(VM, uuid) is None]
        if gone and not context.store.all(VM):
            log.warning(
                "UEFI variables, TPM state or console logs of %d VMs are kept: there is no VM in ZooKeeper.", len(gone)
            )
            return
        for uuid in gone:
            await hypervisor.forget(uuid)
    except PvcdError as error:
        log.warning("%s", error)


@contextlib.asynccontextmanager
async def open_start_backoff(context: Context) -> AsyncIterator[StartBackoff]:
    """Begin without memory of earlier starts."""
    yield StartBackoff()


class GuestStorage:
    """Completes documents before each start with where Ceph is, and the key that libvirt hands to QEMU.

    Ceph is asked each time, to find out here whether it answers: libvirt would wait for it much longer. libvirt gets
    the key each time, since a restarted libvirtd has forgotten it. The key's UUID depends only on the cluster and the
    user: a guest that is migrated finds it on every node.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asking: asyncio.Task[Storage] | None = None

    async def prepare(self) -> Storage:
        """Return what completes documents; calls at the same time share one question to Ceph.

        Raises `HypervisorError` when Ceph does not answer.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._prepare(), name="storage of guests")
            # Reads the error, so that asyncio does not log it when every caller was canceled.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Cancel a question that is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _prepare(self) -> Storage:
        user = ceph.libvirt_user(self._context)
        try:
            need_storage(self._context)
            async with asyncio.timeout(CEPH_SECONDS):
                monitors, key = await ceph.monitors(self._context), await ceph.libvirt_key(self._context)
        except TimeoutError:
            raise HypervisorError(
                f"Cannot reach the guest's volumes: Ceph did not answer within {CEPH_SECONDS:g} s."
            ) from None
        except PvcdError as error:
            raise HypervisorError(f"Cannot reach the guest's volumes: {error.sentence}") from error
        secret = uuid5(NAMESPACE_URL, f"ceph:{monitors.fsid}/client.{user}")
        usage = f"client.{user} of {monitors.fsid}"
        await self._context[HYPERVISOR].set_secret(secret, usage, base64.b64decode(key))
        return Storage(monitors.addresses, user, secret)


@contextlib.asynccontextmanager
async def open_guest_storage(context: Context) -> AsyncIterator[GuestStorage]:
    """Open without asking Ceph: the agent also starts where there is none."""
    guest_storage = GuestStorage(context)
    try:
        yield guest_storage
    finally:
        await guest_storage.close()


HYPERVISOR: ComponentKey[Hypervisor] = ComponentKey("hypervisor")
START_BACKOFF: ComponentKey[StartBackoff] = ComponentKey("start-backoff")
GUEST_STORAGE: ComponentKey[GuestStorage] = ComponentKey("vm-storage")
COMPONENTS: list[Component[Any]] = [
    Component(HYPERVISOR, open_hypervisor, roles=(Role.NODE,), fake=fake_hypervisor),
    Component(START_BACKOFF, open_start_backoff, roles=(Role.NODE,), in_memory=True),
    Component(GUEST_STORAGE, open_guest_storage, roles=(Role.NODE,), needs=(HYPERVISOR,), in_memory=True),
]
