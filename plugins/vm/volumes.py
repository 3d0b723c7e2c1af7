"""Which VMs use which volumes, that no two guests write to one, and that nobody else takes it from under them."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from uuid import UUID

from pvcd import (
    Changed,
    Check,
    Component,
    ComponentKey,
    Conflict,
    Context,
    Create,
    Exists,
    Guard,
    Invalid,
    NotFound,
    Operation,
    Put,
    Record,
    Role,
)
from pvcd_plugins.ceph import service as storage
from pvcd_plugins.vm import domain
from pvcd_plugins.vm.domain import UsedVolume
from pvcd_plugins.vm.records import VM, VMReport, VolumeClaim
from pvcd_plugins.vm.states import is_off

Key = tuple[str, str]
Change = Put | Create | Check
GUARDED = {
    "ceph-volume-remove": "removed",
    "ceph-volume-rename": "renamed",
    "ceph-volume-resize": "made smaller",
    "ceph-snapshot-rollback": "rolled back",
    "ceph-pool-remove": "removed with its pool",
}


class VolumeInUse(Conflict):
    """A VM uses a volume."""

    code = "volume-in-use"


class VolumeIndex:
    """The VMs that name each volume and whether they write to it, kept up to date with every change."""

    def __init__(self) -> None:
        self._users: dict[Key, dict[UUID, bool]] = defaultdict(dict)

    def of(self, pool: str, volume: str) -> Mapping[UUID, bool]:
        """Those of one volume."""
        return self._users.get((pool, volume), {})

    def in_pool(self, pool: str) -> list[Key]:
        """The volumes of a pool that VMs name."""
        return sorted(key for key in self._users if key[0] == pool)

    def changed(self, path: str, old: Record | None, new: Record | None) -> None:
        """Follow a change of the store."""
        if isinstance(old, VM):
            for used in volumes_of(old.xml):
                users = self._users[used.pool, used.volume]
                users.pop(old.uuid, None)
                if not users:
                    del self._users[used.pool, used.volume]
        if isinstance(new, VM):
            for used in volumes_of(new.xml):
                self._users[used.pool, used.volume][new.uuid] = used.writes


@lru_cache(maxsize=20_000)
def volumes_of(xml: str) -> tuple[UsedVolume, ...]:
    """The volumes of a definition; none of one that other rules than ours let in."""
    try:
        return domain.volumes(xml)
    except Invalid:
        return ()


async def write_with_volume_claims(context: Context, vm: VM, *checks: Check) -> None:
    """Write a VM that is to have a guest, with the claims on its volumes and with what else is to hold.

    Raises `VolumeInUse` when the guest of another VM runs, or may, on one of them. The transaction fails when anything
    that this rests on was changed, be it unknown here by then: of two VMs that start at once, each puts itself into the
    same claims.
    """
    try:
        await context.store.write(Put(vm), *await _claims(context, vm), *checks)
    except Exists as error:  # somebody made the claim that we looked for in vain
        raise Changed(error.path) from None


async def _claims(context: Context, vm: VM) -> list[Change]:
    changes: list[Change] = []
    off: dict[UUID, VM] = {}
    for used in volumes_of(vm.xml):
        claim = context.store.get(VolumeClaim, used.pool, used.volume)
        for other in await _others(context, vm, used, claim):
            if not is_off(other, context.store.get(VMReport, other.uuid)):
                raise VolumeInUse(
                    f"VM {vm.name} cannot run: VM {other.name} uses its volume {used}, and is not known to be off."
                )
            off[other.uuid] = other
        if used.writes:
            ours = {"vm": vm.uuid, "generation": vm.generation}
            new = VolumeClaim(pool=used.pool, volume=used.volume, **ours) if claim is None else claim.changed(**ours)
            changes.append(Create(new) if claim is None else Put(new))
    return [*changes, *map(Check, off.values())]


async def _others(context: Context, vm: VM, used: UsedVolume, claim: VolumeClaim | None) -> list[VM]:
    """The VMs that may not have a guest beside this one, because of a volume that either of them writes to."""
    users = context[VOLUME_INDEX].of(used.pool, used.volume)
    keys = {uuid for uuid, writes in users.items() if used.writes or writes}
    if claim is not None and (claim.vm in users or not _is_past(context, claim)):
        keys.add(claim.vm)
    # A VM that another process has just made may be unknown here.
    found = [context.store.get(VM, key) or await context.store.read(VM, key) for key in sorted(keys - {vm.uuid})]
    return [other for other in found if other is not None]


def _is_past(context: Context, claim: VolumeClaim) -> bool:
    """Whether the guest of a VM that names a volume no more was started after that change."""
    report = context.store.get(VMReport, claim.vm)
    return report is not None and report.guest_generation is not None and report.guest_generation > claim.generation


def claims_of(context: Context, vm: VM) -> list[VolumeClaim]:
    """What goes when a VM is forgotten."""
    return [claim for claim in context.store.all(VolumeClaim) if claim.vm == vm.uuid]


async def protect(context: Context, operation: Operation) -> None:
    """Refuse what would take a volume, or a part of it, away from a VM. A volume is rolled back while its VM is off."""
    pool = str(operation.arguments["pool"])
    if operation.name == "ceph-pool-remove":
        keys = context[VOLUME_INDEX].in_pool(pool)
    else:
        keys = [(pool, str(operation.arguments["volume"]))]
    if operation.name == "ceph-volume-resize" and _grows(context, *keys[0], int(operation.arguments["size"])):
        return
    for key in keys:
        for vm in users_of(context, *key, running=operation.name == "ceph-snapshot-rollback"):
            raise VolumeInUse(
                f"The volume {key[0]}/{key[1]} is not {GUARDED[operation.name]}, for VM {vm.name} uses it."
            )


def _grows(context: Context, pool: str, volume: str, size: int) -> bool:
    try:
        return size >= storage.find_volume(context, pool, volume).size
    except NotFound:  # not seen yet
        return False


def users_of(context: Context, pool: str, volume: str, *, running: bool = False) -> list[VM]:
    """The VMs that name a volume or run with it still; with `running` only those that are not known to be off."""
    named = [context.store.get(VM, key) for key in sorted(context[VOLUME_INDEX].of(pool, volume))]
    found = [vm for vm in named if vm is not None and not (running and _off(context, vm))]
    claim = context.store.get(VolumeClaim, pool, volume)
    holder = None if claim is None or _is_past(context, claim) else context.store.get(VM, claim.vm)
    if holder is not None and holder not in found and not _off(context, holder):
        found.append(holder)
    return found


def _off(context: Context, vm: VM) -> bool:
    return is_off(vm, context.store.get(VMReport, vm.uuid))


@contextlib.asynccontextmanager
async def open_volume_index(context: Context) -> AsyncIterator[VolumeIndex]:
    """Read from what is there, and following the store as long as it is open."""
    users = VolumeIndex()
    for vm in context.store.all(VM):
        users.changed(vm.path, None, vm)
    end = context.store.subscribe(users.changed)
    try:
        yield users
    finally:
        end()


VOLUME_INDEX: ComponentKey[VolumeIndex] = ComponentKey("vm-volumes")
COMPONENT = Component(VOLUME_INDEX, open_volume_index, roles=(Role.API, Role.NODE, Role.WORKER))
GUARDS = [Guard("vm-volumes", tuple(GUARDED), protect)]
