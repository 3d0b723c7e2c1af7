"""The states of a VM as a table: requested state x guest -> act; and the state that the API shows."""

from __future__ import annotations

from enum import Enum, auto

from pvcd_plugins.vm.hypervisor import Guest, GuestState
from pvcd_plugins.vm.records import VM, State, VMReport

SETTABLE = ("start", "shutdown", "stop", "restart", "disable")
"""The states that may be requested."""
WANTS_GUEST = (State.START, State.RESTART)


class Seen(Enum):
    """A VM's guest as its node sees it."""

    GONE = auto()
    STALE = auto()
    """It runs, and was started for an earlier request."""
    CURRENT = auto()
    """It runs, and was started for the current request."""
    CRASHED = auto()
    """It has crashed, and the hypervisor still has it."""


class Act(Enum):
    """An act of a node."""

    NOTHING = auto()
    START = auto()
    SHUTDOWN = auto()
    DESTROY = auto()
    FORGET = auto()


ACTS: dict[State, dict[Seen, Act]] = {
    State.START: {
        Seen.GONE: Act.START,
        Seen.STALE: Act.NOTHING,
        Seen.CURRENT: Act.NOTHING,
        Seen.CRASHED: Act.DESTROY,
    },
    State.RESTART: {
        Seen.GONE: Act.START,
        Seen.STALE: Act.SHUTDOWN,
        Seen.CURRENT: Act.NOTHING,
        Seen.CRASHED: Act.DESTROY,
    },
    State.SHUTDOWN: {
        Seen.GONE: Act.NOTHING,
        Seen.STALE: Act.SHUTDOWN,
        Seen.CURRENT: Act.SHUTDOWN,
        Seen.CRASHED: Act.DESTROY,
    },
    State.STOP: {
        Seen.GONE: Act.NOTHING,
        Seen.STALE: Act.DESTROY,
        Seen.CURRENT: Act.DESTROY,
        Seen.CRASHED: Act.DESTROY,
    },
    State.DELETE: {
        Seen.GONE: Act.FORGET,
        Seen.STALE: Act.DESTROY,
        Seen.CURRENT: Act.DESTROY,
        Seen.CRASHED: Act.DESTROY,
    },
}
ACTS[State.DISABLE] = ACTS[State.PROVISION] = ACTS[State.STOP]


def seen(vm: VM, guest: Guest | None) -> Seen:
    """Return what a guest is for a VM's current request."""
    if guest is None or guest.state is GuestState.OFF:
        return Seen.GONE
    if guest.state is GuestState.CRASHED:
        return Seen.CRASHED
    return Seen.CURRENT if guest.generation is not None and guest.generation >= vm.generation else Seen.STALE


def decide(vm: VM, guest: Guest | None) -> Act:
    """Return what to do: nothing before the first request, since a guest that runs by then is not ours."""
    act = Act.NOTHING if vm.generation == 0 else ACTS[vm.state][seen(vm, guest)]
    return Act.NOTHING if act is Act.FORGET and vm.delete_disks else act


def is_off(vm: VM, report: VMReport | None) -> bool:
    """Return whether a VM should not run, and its node has reported that it does not."""
    looked_at = vm.generation == 0 or (report is not None and report.observed_generation == vm.generation)
    return vm.state not in WANTS_GUEST and looked_at and not (report is not None and report.running)


def shown(vm: VM, report: VMReport | None) -> State:
    """Return the state that the API shows: the requested one until the node has done it or failed."""
    taken_up = report is not None and report.observed_generation >= vm.generation
    if report is None or not taken_up:
        return vm.state
    if vm.state in WANTS_GUEST:
        if report.failed_reason and not report.running:
            return State.FAIL
        done = report.running and report.guest_generation is not None and report.guest_generation >= vm.generation
        return State.START if done or vm.state is State.START else State.RESTART
    if vm.state is State.SHUTDOWN and not report.running:
        return State.STOP
    return vm.state
