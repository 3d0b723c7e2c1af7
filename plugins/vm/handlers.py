"""The handlers of VMs: a node looks at the guest, compares it with the record, acts, and reports."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from pvcd import (
    Changed,
    Check,
    Context,
    Handlers,
    HookFailed,
    HookRefused,
    NotFound,
    Operation,
    Put,
    Requeue,
    Upsert,
    retried,
)
from pvcd_plugins.vm.components import GUEST_STORAGE, HYPERVISOR, START_BACKOFF
from pvcd_plugins.vm.console import read_console
from pvcd_plugins.vm.domain import lacks_storage, prepare
from pvcd_plugins.vm.hypervisor import Guest, GuestSilent, GuestState, HypervisorError, HypervisorUnavailable
from pvcd_plugins.vm.indexes import use_of
from pvcd_plugins.vm.policy import HostAccessRequired, refuse_host_access
from pvcd_plugins.vm.records import VM, State, VMReport
from pvcd_plugins.vm.service import forget
from pvcd_plugins.vm.settings import VMSettings
from pvcd_plugins.vm.states import WANTS_GUEST, Act, decide
from pvcd_plugins.vm.volumes import VolumeInUse, write_with_volume_claims

log = logging.getLogger(__name__)
handlers = Handlers()
REPEAT_SHUTDOWN_SECONDS = 10.0


@dataclass(frozen=True)
class Done:
    """The outcome of an act: when to run again, and what to report beside the guest."""

    requeue: Requeue | None = None
    failed_reason: str | None = None
    shutdown_since: float | None = None
    pending: bool = False
    """The act may still take effect."""


@handlers.on(VM)
async def follow(context: Context, vm: VM) -> Requeue | None:
    """Bring this node's guest to the state of its record."""
    guest = await context[HYPERVISOR].look(vm.uuid)
    if vm.node != context.node:
        return await _leave(context, vm, guest)
    report = context.store.get(VMReport, vm.uuid)
    if report and report.running and not _runs(guest):
        await _report(context, vm, guest, Done())  # it ended by itself: report that before it is started again
    act = decide(vm, guest)
    try:
        done = await ACTIONS[act](context, vm, guest)
    except (HypervisorError, HookRefused, HookFailed) as error:
        pending = isinstance(error, GuestSilent)
        await _report(context, vm, guest, Done(failed_reason=error.sentence, pending=pending))
        raise
    if act is not Act.FORGET:
        await _report(context, vm, await context[HYPERVISOR].look(vm.uuid), done)
    return done.requeue


async def _nothing(context: Context, vm: VM, guest: Guest | None) -> Done:
    return Done()


async def _start(context: Context, vm: VM, guest: Guest | None) -> Done:
    """Start the guest, after a write of what it uses that fails unless the record is still the same."""
    now, backoff = context.clock.time(), context[START_BACKOFF]
    pause = backoff.pause(vm.uuid, vm.generation, now)
    if pause > 0:
        reason = "Cannot keep the guest running: it ended soon after each of its last starts. It is started again."
        return Done(Requeue(pause), failed_reason=reason)
    try:  # the node's own settings decide, whatever those of the API were
        refuse_host_access(f"Cannot start VM {vm.name!r}:", vm.xml, context.settings.of(VMSettings).access)
    except HostAccessRequired as error:
        return Done(failed_reason=error.sentence)
    storage = await context[GUEST_STORAGE].prepare() if lacks_storage(vm.xml) else None
    console_log = str(_console_log(context, vm.uuid))
    document = prepare(vm.xml, generation=vm.generation, console_log=console_log, storage=storage)

    async def act() -> None:
        report = _reported(context, vm).changed(guest_use=use_of(vm.xml))
        await context.store.write(Upsert(report), Check(vm))
        await context[HYPERVISOR].start(document)

    try:
        await context.operations.run(context, "guest-start", _arguments(context, vm), act)
    except Changed:
        return Done(Requeue(0.0))
    backoff.started(vm.uuid, vm.generation, now)
    return Done()


def _arguments(context: Context, vm: VM) -> dict[str, str]:
    return {"vm": vm.name, "uuid": str(vm.uuid), "node": context.node}


async def _shutdown(context: Context, vm: VM, guest: Guest | None) -> Done:
    """Ask the guest to shut down, repeatedly; stop it when its time is over."""
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
    except (HypervisorError, HypervisorUnavailable) as error:
        failed_reason = error.sentence  # the guest's time runs on
    return Done(Requeue(min(REPEAT_SHUTDOWN_SECONDS, since + limit - now)), failed_reason, since)


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
    """End a guest whose VM belongs to another node by now: it must never run twice."""
    if guest is not None and guest.generation is not None:
        await context[HYPERVISOR].destroy(vm.uuid)
    return None


def _runs(guest: Guest | None) -> bool:
    return guest is not None and guest.state not in (GuestState.OFF, GuestState.CRASHED)


async def _report(context: Context, vm: VM, guest: Guest | None, done: Done) -> None:
    """Write the report, if it has changed."""
    running = _runs(guest)
    use = {} if running or done.pending else {"guest_use": None}
    report: dict[str, Any] = {
        "node": context.node,
        "running": running,
        "observed_generation": vm.generation,
        "guest_generation": guest.generation if guest and running else None,
        "failed_reason": done.failed_reason or (guest.problem if guest and running else None),
        "shutdown_since": done.shutdown_since if running else None,
        **use,
    }
    old = await _write_report(context, vm, report)
    if old and old.running and not running:
        await context.operations.notify(context, "guest-end", _arguments(context, vm))


@retried
async def _write_report(context: Context, vm: VM, values: dict[str, Any]) -> VMReport | None:
    """Write a report that has changed, unless the VM is gone, and return the one before."""
    old, current = context.store.get(VMReport, vm.uuid), context.store.get(VM, vm.uuid)
    if current is not None and not (old and old.holds(values)):
        new = _reported(context, vm).changed(**values, updated=context.clock.time())
        await context.store.write(Upsert(new), *([] if old else [Check(current)]))
    return old


def _reported(context: Context, vm: VM) -> VMReport:
    """Return the report of a VM; one to be created if there is none."""
    found = context.store.get(VMReport, vm.uuid)
    return found or VMReport(uuid=vm.uuid, node=context.node, observed_generation=-1)


@handlers.gone(VM)
async def clean(context: Context, vm: VM) -> None:
    """Remove what this node kept for a VM that is gone."""
    context[START_BACKOFF].forget(vm.uuid)
    await context[HYPERVISOR].forget(vm.uuid)


@handlers.node_command("vm-console")
async def console(context: Context, uuid: str, lines: int) -> str:
    """Return the last lines of a VM's serial log."""
    vm = context.store.get(VM, uuid)
    if vm is None:
        raise NotFound("VM", uuid)
    return "\n".join(read_console(_console_log(context, vm.uuid), lines))


def _console_log(context: Context, uuid: UUID) -> Path:
    return context.settings.of(VMSettings).console_directory / f"{uuid}.log"


async def drain(context: Context, operation: Operation) -> list[str]:
    """Shut down this node's VMs, to be started when it is ready again; return the names of VMs that still run."""
    guests = await context[HYPERVISOR].domains()
    remaining = []
    for vm in context.store.all(VM):
        if vm.node == context.node:
            if vm.state in WANTS_GUEST:
                await _shut_down_for_flush(context, vm.uuid)
            if vm.uuid in guests and guests[vm.uuid].state is not GuestState.OFF:
                remaining.append(vm.name)
    return remaining


async def restore(context: Context, operation: Operation) -> list[str]:
    """Start the VMs of this node that are marked for autostart."""
    for vm in context.store.all(VM):
        if vm.node == context.node and vm.node_autostart and vm.state in (State.STOP, State.SHUTDOWN, *WANTS_GUEST):
            try:
                await _start_again(context, vm.uuid)
            except VolumeInUse as error:  # it stays marked; the node becomes ready without it
                log.warning("%s", error)
    return []


@retried
async def _shut_down_for_flush(context: Context, uuid: UUID) -> None:
    vm = context.store.get(VM, uuid)
    if vm is not None and vm.state in WANTS_GUEST:
        await context.store.write(
            Put(vm.changed(state=State.SHUTDOWN, generation=vm.generation + 1, node_autostart=True))
        )


@retried
async def _start_again(context: Context, uuid: UUID) -> None:
    vm = context.store.get(VM, uuid)
    if vm is not None and vm.node_autostart and not vm.outside_limit:
        generation = vm.generation if vm.state in WANTS_GUEST else vm.generation + 1
        await write_with_volume_claims(
            context, vm.changed(state=State.START, generation=generation, node_autostart=False)
        )
