"""The Ceph volumes of VMs: which VM may write to one, what may be done to one in use, their removal and locks."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from uuid import UUID

from pydantic import BaseModel

from pvcd import Change, Check, Conflict, Context, Failed, NotFound, Operation, Put, PvcdError, Refused, Task, Upsert
from pvcd_plugins.ceph import service as storage
from pvcd_plugins.ceph.service import DEAD_CLIENT_SECONDS
from pvcd_plugins.vm.domain import UsedVolume
from pvcd_plugins.vm.indexes import VOLUME_INDEX, volumes_of
from pvcd_plugins.vm.records import VM, State, VMReport, VolumeClaim
from pvcd_plugins.vm.states import is_off

GUARDED = {
    "ceph-volume-remove": "remove volume",
    "ceph-volume-rename": "rename volume",
    "ceph-volume-resize": "shrink volume",
    "ceph-snapshot-rollback": "roll back volume",
    "ceph-pool-remove": "remove pool",
}
"""The operations that may not take a volume away from a VM, each with the words for its refusal."""
RETRY_SECONDS = 2.0
"""The pause between attempts to remove a volume that a killed guest still has open."""
GONE = ("volume-not-found", "pool-not-found")
OnVolume = Callable[[Context, str, str], Awaitable[None]]
"""An act on a pool's volume."""


class VolumeInUse(Conflict):
    """A VM uses a volume."""

    code = "volume-in-use"


class VolumeLock(BaseModel):
    """A client's lock on a volume."""

    pool: str
    volume: str
    id: str
    locker: str
    address: str


def need_storage(context: Context) -> None:
    """Refuse what needs Ceph where the storage plugin is switched off."""
    if not context.store.knows(storage.Volume):
        raise Refused("Cannot ask Ceph: the storage plugin is switched off.", code="storage-not-available")


# Claims: no two guests write to one volume


async def write_with_volume_claims(context: Context, vm: VM, *others: Change) -> None:
    """Write a VM that is to have a guest, in one transaction with the claims on its volumes and other changes.

    Raises `VolumeInUse` when the guest of another VM runs, or may run, on one of them. The transaction fails when
    anything that the decision rests on has changed, even if the change is not visible here yet: two VMs that start at
    the same time write the same claims, so that one of them comes second.
    """
    await context.store.write(Put(vm), *await claim_volumes(context, vm), *others)


async def claim_volumes(context: Context, vm: VM) -> list[Change]:
    """Return the changes that claim the volumes of a VM which is to have a guest, or to be built."""
    changes: list[Change] = []
    off: dict[UUID, VM] = {}
    for used in volumes_of(vm.xml):
        claim = context.store.get(VolumeClaim, used.pool, used.volume)
        for other in await _others(context, vm, used, claim):
            if not _off(context, other):
                act = "build" if vm.state is State.PROVISION else "run"
                raise VolumeInUse(
                    f"Cannot {act} VM {vm.name!r}: volume '{used}' is in use by {_holder(context, other)}"
                )
            off[other.uuid] = other
        if used.writes:
            ours = {"vm": vm.uuid, "generation": vm.generation}
            new = claim.changed(**ours) if claim else VolumeClaim(pool=used.pool, volume=used.volume, **ours)
            changes.append(Upsert(new))
    return [*changes, *map(Check, off.values())]


async def _others(context: Context, vm: VM, used: UsedVolume, claim: VolumeClaim | None) -> list[VM]:
    """Return the VMs that may not run beside this one, because one of the two writes to the volume."""
    users = context[VOLUME_INDEX].of(used.pool, used.volume)
    keys = {uuid for uuid, writes in users.items() if used.writes or writes}
    if claim is not None and (claim.vm in users or not _is_past(context, claim)):
        keys.add(claim.vm)
    # A VM that another process has just made may be unknown here.
    found = [context.store.get(VM, key) or await context.store.read(VM, key) for key in sorted(keys - {vm.uuid})]
    return [other for other in found if other is not None]


def _is_past(context: Context, claim: VolumeClaim) -> bool:
    """Return whether the guest was started after its VM's definition stopped naming the claimed volume."""
    report = context.store.get(VMReport, claim.vm)
    return report is not None and report.guest_generation is not None and report.guest_generation > claim.generation


def claims_of(context: Context, vm: VM) -> list[VolumeClaim]:
    """Return the claims that go when a VM is forgotten."""
    return [claim for claim in context.store.all(VolumeClaim) if claim.vm == vm.uuid]


def users_of(context: Context, pool: str, volume: str, *, running: bool = False) -> list[VM]:
    """Return the VMs that name a volume or still run with it; with `running` only those not known to be off."""
    named = [context.store.get(VM, key) for key in sorted(context[VOLUME_INDEX].of(pool, volume))]
    found = [vm for vm in named if vm is not None and not (running and _off(context, vm))]
    claim = context.store.get(VolumeClaim, pool, volume)
    holder = None if claim is None or _is_past(context, claim) else context.store.get(VM, claim.vm)
    if holder is not None and holder not in found and not _off(context, holder):
        found.append(holder)
    return found


def builder_of(context: Context, vm: VM) -> UUID | None:
    """Return the task that builds a VM and has not ended."""
    task = context.store.get(Task, vm.task) if vm.state is State.PROVISION else None
    return task.id if task and not task.is_over else None


def _off(context: Context, vm: VM) -> bool:
    return builder_of(context, vm) is None and is_off(vm, context.store.get(VMReport, vm.uuid))


def _holder(context: Context, vm: VM) -> str:
    """Return the end of a sentence: the VM that is not off, or the task that builds it, and the way out."""
    if task := builder_of(context, vm):
        return f"task {task}, which builds VM {vm.name!r}. Cancel the task first, or wait for its end."
    return f"VM {vm.name!r}, which is not known to be off. Stop VM {vm.name!r} first."


# What others do to volumes


async def protect(context: Context, operation: Operation) -> None:
    """Refuse what takes a volume, or a part of it, from a VM; a rollback only while the VM is not known to be off.

    Nothing at all may be done to a volume on which a task works.
    """
    pool, name = str(operation.arguments["pool"]), operation.name
    whole_pool, rollback = name == "ceph-pool-remove", name == "ceph-snapshot-rollback"
    keys = context[VOLUME_INDEX].in_pool(pool) if whole_pool else [(pool, str(operation.arguments["volume"]))]
    grows = name == "ceph-volume-resize" and _grows(context, *keys[0], int(operation.arguments["size"]))
    for key in keys:
        for vm in users_of(context, *key, running=rollback):
            volume, verb = "/".join(key), "grow volume" if grows else GUARDED[name]
            what, used = (repr(pool), f"volume {volume!r} is in use") if whole_pool else (repr(volume), "in use")
            if builder_of(context, vm):
                raise VolumeInUse(f"Cannot {verb} {what}: {used} by {_holder(context, vm)}")
            named = key in [(each.pool, each.volume) for each in volumes_of(vm.xml)]
            remedy = "Remove the VM, or the disk from its definition," if named and not rollback else "Stop the VM"
            if not grows:
                raise VolumeInUse(f"Cannot {verb} {what}: {used} by VM {vm.name!r}. {remedy} first.")


def _grows(context: Context, pool: str, volume: str, size: int) -> bool:
    try:
        return size >= storage.find_volume(context, pool, volume).size
    except NotFound:  # not mirrored yet
        return False


# Requests to Ceph for a VM


async def check_removal(context: Context, vm: VM) -> None:
    """Raise `Failed` with the volumes of a VM that could not be removed even if it were off."""

    async def check(used: UsedVolume) -> PvcdError | None:
        error = await _error_of(storage.check_removal, context, used)
        return None if error and error.code == VolumeInUse.code else error

    await _for_each(_sort(context, vm)[1], check)


async def remove_volumes(context: Context, vm: VM) -> list[str]:
    """Remove the volumes of a VM that is off; return a warning for each volume that is kept.

    Nothing is removed unless all of them can be. Raises `Failed` with those that cannot be removed. A volume that is
    gone already counts as removed, so that the request can be repeated.
    """
    kept, removable = _sort(context, vm)
    await _for_each(removable, functools.partial(_error_in_time, storage.check_removal, context))
    await _for_each(removable, functools.partial(_error_in_time, storage.remove_volume, context))
    return kept


def _sort(context: Context, vm: VM) -> tuple[list[str], list[UsedVolume]]:
    """Return a warning for each volume that is kept when a VM is removed, and the volumes that go."""
    kept, removable = [], []
    for used in volumes_of(vm.xml):
        names = [user.name for user in users_of(context, used.pool, used.volume) if user.uuid != vm.uuid]
        if names:
            kept.append(f"Volume '{used}' kept: in use by VM {', '.join(map(repr, sorted(names)))}.")
        elif used.writes:
            removable.append(used)
        else:
            kept.append(f"Volume '{used}' kept: VM {vm.name!r} used it read-only.")
    return kept, removable


async def _for_each(volumes: list[UsedVolume], act: Callable[[UsedVolume], Awaitable[PvcdError | None]]) -> None:
    """Act on all volumes; raise one `Failed` with all errors."""
    reasons = []
    for used, error in zip(volumes, await asyncio.gather(*map(act, volumes)), strict=True):
        if error:
            reasons.append(f"'{used}': " + error.sentence.removeprefix(f"Cannot remove volume '{used}': "))
    if reasons:
        raise Failed(" ".join(reasons), code="volumes-not-removed")


async def _error_in_time(act: OnVolume, context: Context, used: UsedVolume) -> PvcdError | None:
    """Act on a volume, again while a killed client still counts as using it; return the last error."""
    end = context.clock.time() + DEAD_CLIENT_SECONDS
    while True:
        error = await _error_of(act, context, used)
        if error is None or error.code != VolumeInUse.code or context.clock.time() >= end:
            return error
        await context.clock.sleep(RETRY_SECONDS)


async def _error_of(act: OnVolume, context: Context, used: UsedVolume) -> PvcdError | None:
    """Act on a volume; return the error, unless it is that the volume is gone."""
    try:
        await act(context, used.pool, used.volume)
    except PvcdError as error:
        return None if error.code in GONE else error
    return None


async def locks(context: Context, vm: VM) -> list[VolumeLock]:
    """Return the locks of a VM's volumes; a volume that does not exist has none."""
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
    """Break the locks of a VM's volumes, if every VM that uses one is known to be off; return how many there were."""
    count = 0
    for used in volumes_of(vm.xml):
        need_storage(context)
        for user in users_of(context, used.pool, used.volume, running=True):
            raise Conflict(
                f"Cannot break the locks of volume '{used}': in use by VM {user.name!r}, which is not known to be off. "
                f"Stop VM {user.name!r} first.",
                code="vm-not-stopped",
            )
        try:
            count += len(await storage.clear_locks(context, used.pool, used.volume))
        except PvcdError as error:
            if error.code not in GONE:
                raise
    return count
