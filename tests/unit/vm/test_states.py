"""The tables of states are complete, and decide what is done and shown."""

from __future__ import annotations

from uuid import UUID

import pytest

from pvcd_plugins.vm.hypervisor import Guest, GuestState
from pvcd_plugins.vm.records import VM, State, VMReport
from pvcd_plugins.vm.states import ACTS, SETTABLE, WANTS_GUEST, Act, Seen, decide, seen, shown

UUID_OF_ALL = UUID(int=7)
NEVER_STORED = {State.FAIL, State.MIGRATE, State.UNMIGRATE}
"""States of the manual that are only shown, or only requested."""


def vm(state: State, generation: int = 5) -> VM:
    return VM(uuid=UUID_OF_ALL, name="web1", state=state, generation=generation, node="hv1", xml="<domain/>")


def guest(state: GuestState, generation: int | None) -> Guest:
    return Guest(uuid=UUID_OF_ALL, name="web1", state=state, generation=generation, memory=128, vcpus=1)


def report(generation: int = 5, **values: object) -> VMReport:
    return VMReport.model_validate({"uuid": UUID_OF_ALL, "node": "hv1", "observed_generation": generation} | values)


def test_the_table_has_an_act_for_every_stored_state_and_every_guest() -> None:
    assert set(ACTS) == set(State) - NEVER_STORED
    for state, acts in ACTS.items():
        assert set(acts) == set(Seen), state


def test_every_settable_state_can_be_stored() -> None:
    assert {State(word) for word in SETTABLE} <= set(ACTS)


ALIVE = [GuestState.RUNNING, GuestState.PAUSED, GuestState.SHUTTING_DOWN]


@pytest.mark.parametrize("state", ALIVE)
@pytest.mark.parametrize(
    ("generation", "expected"), [(5, Seen.CURRENT), (6, Seen.CURRENT), (4, Seen.STALE), (None, Seen.STALE)]
)
def test_a_guest_is_current_or_stale_by_its_generation(
    state: GuestState, generation: int | None, expected: Seen
) -> None:
    assert seen(vm(State.START), guest(state, generation)) is expected


def test_a_missing_guest_one_that_is_off_and_one_that_crashed_are_distinguished() -> None:
    assert seen(vm(State.START), None) is Seen.GONE
    assert seen(vm(State.START), guest(GuestState.OFF, None)) is Seen.GONE
    assert seen(vm(State.START), guest(GuestState.CRASHED, 5)) is Seen.CRASHED


GONE, STALE, PRESENT = None, guest(GuestState.RUNNING, 4), guest(GuestState.RUNNING, 5)
CRASHED = guest(GuestState.CRASHED, 5)


@pytest.mark.parametrize(
    ("state", "look", "act"),
    [
        (State.START, GONE, Act.START),
        (State.START, STALE, Act.NOTHING),
        (State.START, PRESENT, Act.NOTHING),
        (State.START, CRASHED, Act.DESTROY),
        (State.RESTART, GONE, Act.START),
        (State.RESTART, STALE, Act.SHUTDOWN),
        (State.RESTART, PRESENT, Act.NOTHING),
        (State.SHUTDOWN, GONE, Act.NOTHING),
        (State.SHUTDOWN, STALE, Act.SHUTDOWN),
        (State.STOP, GONE, Act.NOTHING),
        (State.STOP, PRESENT, Act.DESTROY),
        (State.DISABLE, PRESENT, Act.DESTROY),
        (State.DISABLE, GONE, Act.NOTHING),
        (State.PROVISION, GONE, Act.NOTHING),
        (State.DELETE, PRESENT, Act.DESTROY),
        (State.DELETE, GONE, Act.FORGET),
    ],
)
def test_the_state_and_the_guest_decide_the_act(state: State, look: Guest | None, act: Act) -> None:
    assert decide(vm(state), look) is act


@pytest.mark.parametrize("look", [GONE, STALE, PRESENT, CRASHED])
def test_nothing_is_done_before_the_first_request(look: Guest | None) -> None:
    assert decide(vm(State.STOP, generation=0), look) is Act.NOTHING


@pytest.mark.parametrize("state", sorted(ACTS))
def test_only_a_state_that_wants_a_guest_starts_one(state: State) -> None:
    assert (Act.START in ACTS[state].values()) is (state in WANTS_GUEST)


@pytest.mark.parametrize("state", sorted(ACTS))
@pytest.mark.parametrize("said", [None, report(4, running=True, failed_reason="no"), report(0)])
def test_the_requested_state_is_shown_until_the_node_has_observed_it(state: State, said: VMReport | None) -> None:
    assert shown(vm(state), said) is state


@pytest.mark.parametrize(
    ("state", "said", "expected"),
    [
        (State.START, report(running=True, guest_generation=5), State.START),
        (State.START, report(running=True, guest_generation=3), State.START),
        (State.START, report(running=False), State.START),
        (State.START, report(running=False, failed_reason="no disk"), State.FAIL),
        (State.START, report(running=True, guest_generation=5, failed_reason="late"), State.START),
        (State.RESTART, report(running=True, guest_generation=4), State.RESTART),
        (State.RESTART, report(running=True, guest_generation=None), State.RESTART),
        (State.RESTART, report(running=False), State.RESTART),
        (State.RESTART, report(running=True, guest_generation=5), State.START),
        (State.RESTART, report(running=False, failed_reason="no disk"), State.FAIL),
        (State.SHUTDOWN, report(running=True), State.SHUTDOWN),
        (State.SHUTDOWN, report(running=False), State.STOP),
        (State.STOP, report(running=True), State.STOP),
        (State.STOP, report(running=False), State.STOP),
        (State.DISABLE, report(running=False), State.DISABLE),
        (State.DELETE, report(running=True), State.DELETE),
    ],
)
def test_the_reported_state_is_shown_afterwards(state: State, said: VMReport, expected: State) -> None:
    assert shown(vm(state), said) is expected
