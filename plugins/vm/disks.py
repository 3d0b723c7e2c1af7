"""What is asked of Ceph for a VM as a whole: to remove the volumes of one that goes, and to clear the locks of one."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from pydantic import BaseModel

from pvcd import Conflict, Context, Failed, PvcdError, Refused
from pvcd_plugins.ceph import service as storage
from pvcd_plugins.vm.domain import UsedVolume
from pvcd_plugins.vm.records import VM
from pvcd_plugins.vm.volumes import users_of, volumes_of

DEAD_CLIENT, PAUSE = 40.0, 2.0
"""Seconds for which Ceph may still count the client of a guest that was killed, and between two looks."""
GONE = ("volume-not-found", "pool-not-found")


class VolumeLock(BaseModel):
    """A client's lock on a volume."""

    pool: str
    volume: str
    id: str
    locker: str
    address: str


def need_storage(context: Context) -> None:
    """Refuse where nothing stands between us and Ceph."""
    if not context.store.knows(storage.Volume):
        raise Refused("This needs Ceph, and the storage plugin is switched off.", code="storage-not-available")


async def remove_volumes(context: Context, vm: VM) -> list[str]:
    """Remove the volumes of a VM that is off; returns which of them stay, and why.

    Raises `Failed` with those that could not be removed; what is gone already is fine, so that it can be repeated.
    """
    kept, doomed = [], []
    for used in volumes_of(vm.xml):
        names = [user.name for user in users_of(context, used.pool, used.volume) if user.uuid != vm.uuid]
        if names:
            kept.append(f"The volume {used} stays: VM {', '.join(sorted(names))} uses it, too.")
        elif used.writes:
            doomed.append(used)
        else:
            kept.append(f"The volume {used} stays: VM {vm.name} only read it.")
    reasons = [reason for reason in await asyncio.gather(*(_remove(context, used) for used in doomed)) if reason]
    if reasons:
        raise Failed(" ".join(reasons), code="volumes-not-removed")
    return kept


async def _remove(context: Context, used: UsedVolume) -> str | None:
    """Remove a volume; why it is still there, or None."""
    end = context.clock.time() + DEAD_CLIENT
    while True:
        try:
            await storage.remove_volume(context, used.pool, used.volume)
        except PvcdError as error:
            if error.code in GONE:
                return None
            if error.code != "volume-in-use" or context.clock.time() >= end:
                return f"{used}: {error.sentence}"
        else:
            return None
        await context.clock.sleep(PAUSE)


async def locks(context: Context, vm: VM) -> list[VolumeLock]:
    """The locks of a VM's volumes. A volume that does not exist has none."""
    found = []
    for used in volumes_of(vm.xml):
        need_storage(context)
        try:
            listed = await storage.locks(context, used.pool, used.volume)
            found += [VolumeLock(pool=used.pool, volume=used.volume, **asdict(lock)) for lock in listed]
        except PvcdError as error:
            if error.code not in GONE:
                raise
    return found


async def clear_locks(context: Context, vm: VM) -> int:
    """Break the locks of a VM's volumes, which nobody uses who is not known to be off; how many there were."""
    count = 0
    for used in volumes_of(vm.xml):
        need_storage(context)
        for user in users_of(context, used.pool, used.volume, running=True):
            raise Conflict(
                f"The locks of the volume {used} stay, for VM {user.name} uses it and is not known to be off.",
                code="vm-not-stopped",
            )
        try:
            count += len(await storage.clear_locks(context, used.pool, used.volume))
        except PvcdError as error:
            if error.code not in GONE:
                raise
    return count
