"""What a node does for its VMs: look what the hypervisor says, compare, act, and report."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from pvcd import (
    Changed,
    Context,
    Create,
    Handlers,
    HookFailed,
    HookRefused,
    NotFound,
    Operation,
    OperationKind,
    Put,
    Requeue,
    retried,
)
from pvcd_plugins.vm.components import HYPERVISOR, START_BACKOFF
from pvcd_plugins.vm.console import read_console
from pvcd_plugins.vm.domain import lacks_storage, prepare
from pvcd_plugins.vm.hypervisor import Guest, GuestState, HypervisorError
from pvcd_plugins.vm.records import VM, State, VMReport
from pvcd_plugins.vm.service import forget
from pvcd_plugins.vm.settings import VMSettings
from pvcd_plugins.vm.states import WANTS_GUEST, Act, decide
from pvcd_plugins.vm.storage import GUEST_STORAGE
from pvcd_plugins.vm.volumes import VolumeInUse, write_with_volume_claims

log = logging.getLogger(__name__)
handlers = Handlers()
PRESS_AGAIN = 10.0
_GUEST = {
    "vm": {"type": "string", "description": "The VM's name"},
    "uuid": {"type": "string", "format": "uuid", "description": "The VM's UUID"},
    "node": {"type": "string", "description": "The node"},
}
OPERATIONS = [
    OperationKind("guest-start", "A node starts the guest of a VM.", "node", _GUEST),
    OperationKind("guest-end", "The guest of a VM has ended, whatever the reason.", "node", _GUEST, ("post",)),
]
"""What nodes do by themselves."""


@dataclass(frozen=True)
class Done:
    """What an act came to: when to look again, and what to report beside what is seen."""

    again: Requeue | None = None
    failed_reason: str | None = None
    shutdown_since: float | None = None


@handlers.on(VM)
async def follow(context: Context, vm: VM) -> Requeue | None:
    """Make this node's guest what the record says."""
    guest = await context[HYPERVISOR].look(vm.uuid)
    if vm.node != context.node:
        return await _leave(context, vm, guest)
    report = context.store.get(VMReport, vm.uuid)
    if report and report.running and not _runs(guest):
        await _report(context, vm, guest, Done())  # it ended by itself, and may run again in a moment
    act = decide(vm, guest)
    try:
        done = await ACTIONS[act](context, vm, guest)
    except (HypervisorError, HookRefused, HookFailed) as error:
        await _report(context, vm, guest, Done(failed_reason=error.sentence))
        raise
    if act is not Act.FORGET:
        await _report(context, vm, await context[HYPERVISOR].look(vm.uuid), done)
    return done.again


async def _nothing(context: Context, vm: VM, guest: Guest | None) -> Done:
    return Done()


async def _start(context: Context, vm: VM, guest: Guest | None) -> Done:
    """Start the guest, once the store itself has said that this is still what is wanted."""
    now, restraint = context.clock.time(), context[START_BACKOFF]
    pause = restraint.pause(vm.uuid, vm.generation, now)
    if pause > 0:
        return Done(Requeue(pause), failed_reason="The guest keeps ending soon after its start; it is tried again.")
    storage = await context[GUEST_STORAGE].prepare() if lacks_storage(vm.xml) else None
    console_log = str(_console_log(context, vm.uuid))
    document = prepare(vm.xml, generation=vm.generation, console_log=console_log, storage=storage)

    async def act() -> None:
        current = await context.store.read(VM, vm.uuid)
        if current is None or current.version != vm.version:
            raise Changed(vm.path)
        await context[HYPERVISOR].start(document)

    try:
        await context.operations.run(context, "guest-start", _told(context, vm), act)
    except Changed:
        return Done(Requeue(0.0))
    restraint.started(vm.uuid, vm.generation, now)
    return Done()


def _told(context: Context, vm: VM) -> dict[str, str]:
    return {"vm": vm.name, "uuid": str(vm.uuid), "node": context.node}


async def _shutdown(context: Context, vm: VM, guest: Guest | None) -> Done:
    """Ask the guest to shut down, again now and then; stop it when its time is over."""
    now, limit = context.clock.time(), context.settings.of(VMSettings).shutdown_seconds
    report = context.store.get(VMReport, vm.uuid)
    since = report.shutdown_since if report and report.observed_generation == vm.generation else None
    if since is None:
        since = now
    if now - since >= limit:
        return await _destroy(context, vm, guest)
    failed_reason = None
    try:
        await context[HYPERVISOR].shutdown(vm.uuid)
    except HypervisorError as error:
        failed_reason = error.sentence  # its time runs all the same
    return Done(Requeue(min(PRESS_AGAIN, since + limit - now)), failed_reason, since)


async def _destroy(context: Context, vm: VM, guest: Guest | None) -> Done:
    await context[HYPERVISOR].destroy(vm.uuid)
    return Done(Requeue(0.0))


async def _forget(context: Context, vm: VM, guest: Guest | None) -> Done:
    await forget(context, vm)
    return Done()


ACTIONS: dict[Act, Callable[[Context, VM, Guest | None], Awaitable[Done]]] = {
    Act.NOTHING: _nothing,
    Act.START: _start,
    Act.SHUTDOWN: _shutdown,
    Act.DESTROY: _destroy,
    Act.FORGET: _forget,
}


async def _leave(context: Context, vm: VM, guest: Guest | None) -> Requeue | None:
    """End a guest of ours that belongs to another node by now: it must never run twice."""
    if guest is not None and guest.generation is not None:
        await context[HYPERVISOR].destroy(vm.uuid)
    return None


def _runs(guest: Guest | None) -> bool:
    return guest is not None and guest.state not in (GuestState.OFF, GuestState.CRASHED)


@retried
async def _report(context: Context, vm: VM, guest: Guest | None, done: Done) -> None:
    """Write what is so, if it is news."""
    running = _runs(guest)
    said = {
        "node": context.node,
        "running": running,
        "observed_generation": vm.generation,
        "guest_generation": guest.generation if guest and running else None,
        "failed_reason": done.failed_reason,
        "shutdown_since": done.shutdown_since if running else None,
    }
    old = context.store.get(VMReport, vm.uuid)
    if old is None:
        await context.store.write(Create(VMReport(uuid=vm.uuid, updated=context.clock.time(), **said)))
    elif any(getattr(old, name) != value for name, value in said.items()):
        await context.store.write(Put(old.changed(updated=context.clock.time(), **said)))
        if old.running and not running:
            await context.operations.notify(context, "guest-end", _told(context, vm))


@handlers.gone(VM)
async def clean(context: Context, vm: VM) -> None:
    """Remove what this node kept for a VM that is no more."""
    context[START_BACKOFF].forget(vm.uuid)
    log = _console_log(context, vm.uuid)
    for path in (log, Path(f"{log}.0")):
        path.unlink(missing_ok=True)


@handlers.node_command("vm-console")
async def console(context: Context, uuid: str, lines: int) -> str:
    """The last lines of a VM's serial log."""
    vm = context.store.get(VM, uuid)
    if vm is None:
        raise NotFound("VM", uuid)
    return "\n".join(read_console(_console_log(context, vm.uuid), lines))


def _console_log(context: Context, uuid: UUID) -> Path:
    return context.settings.of(VMSettings).console_directory / f"{uuid}.log"


async def drain(context: Context, operation: Operation) -> list[str]:
    """Shut down what runs on this node, to come back when it is ready; the names of what still runs."""
    guests = await context[HYPERVISOR].domains()
    remaining = []
    for vm in context.store.all(VM):
        if vm.node == context.node:
            if vm.state in WANTS_GUEST:
                await _set_aside(context, vm.uuid)
            if vm.uuid in guests and guests[vm.uuid].state is not GuestState.OFF:
                remaining.append(vm.name)
    return remaining


async def restore(context: Context, operation: Operation) -> list[str]:
    """Start the VMs of this node that are marked for it."""
    for vm in context.store.all(VM):
        if vm.node == context.node and vm.node_autostart and vm.state in (State.STOP, State.SHUTDOWN, *WANTS_GUEST):
            try:
                await _bring_back(context, vm.uuid)
            except VolumeInUse as error:  # it stays marked, and must not keep the node from being ready
                log.warning("%s", error)
    return []


@retried
async def _set_aside(context: Context, uuid: UUID) -> None:
    vm = context.store.get(VM, uuid)
    if vm is not None and vm.state in WANTS_GUEST:
        await context.store.write(
            Put(vm.changed(state=State.SHUTDOWN, generation=vm.generation + 1, node_autostart=True))
        )


@retried
async def _bring_back(context: Context, uuid: UUID) -> None:
    vm = context.store.get(VM, uuid)
    if vm is not None and vm.node_autostart and not vm.outside_limit:
        generation = vm.generation if vm.state in WANTS_GUEST else vm.generation + 1
        await write_with_volume_claims(
            context, vm.changed(state=State.START, generation=generation, node_autostart=False)
        )
