"""How this node's guests reach Ceph: its monitors, and a key that libvirt hands to QEMU."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from uuid import NAMESPACE_URL, uuid5

from pvcd import Component, ComponentKey, Context, PvcdError, Role
from pvcd_plugins.ceph import service as ceph
from pvcd_plugins.vm.components import HYPERVISOR
from pvcd_plugins.vm.disks import need_storage
from pvcd_plugins.vm.domain import Storage
from pvcd_plugins.vm.hypervisor import HypervisorError

LIMIT = 10.0


class GuestStorage:
    """Asked before each start, and so also whether Ceph answers at all: libvirt would wait for it much longer.

    The key is given to libvirt each time, which may have been restarted and so have forgotten it. Its UUID depends on
    the cluster and the user only: a guest that is migrated finds it on every node.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asking: asyncio.Task[Storage] | None = None

    async def prepare(self) -> Storage:
        """What to complete documents with; raises `HypervisorError` when Ceph cannot say. Once for all who wait."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._prepare(), name="storage of guests")
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # if nobody waits
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Let nobody wait any more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _prepare(self) -> Storage:
        user = ceph.libvirt_user(self._context)
        try:
            need_storage(self._context)
            async with asyncio.timeout(LIMIT):
                monitors, key = await ceph.monitors(self._context), await ceph.libvirt_key(self._context)
        except TimeoutError:
            raise HypervisorError(f"The guest's volumes cannot be reached: no word from Ceph in {LIMIT:g} s.") from None
        except PvcdError as error:
            raise HypervisorError(f"The guest's volumes cannot be reached: {error.sentence}") from error
        secret = uuid5(NAMESPACE_URL, f"ceph:{monitors.fsid}/client.{user}")
        usage = f"client.{user} of {monitors.fsid}"
        await self._context[HYPERVISOR].set_secret(secret, usage, base64.b64decode(key))
        return Storage(monitors.addresses, user, secret)


@contextlib.asynccontextmanager
async def open_storage(context: Context) -> AsyncIterator[GuestStorage]:
    """Nothing is asked yet: the agent starts also where there is no Ceph."""
    guest_storage = GuestStorage(context)
    try:
        yield guest_storage
    finally:
        await guest_storage.close()


GUEST_STORAGE: ComponentKey[GuestStorage] = ComponentKey("vm-storage")
COMPONENT = Component(GUEST_STORAGE, open_storage, roles=(Role.NODE,), needs=(HYPERVISOR,))
