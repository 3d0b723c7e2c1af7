"""StartBackoff: how soon a guest that died is started again."""

from __future__ import annotations

from uuid import UUID

from pvcd_plugins.vm.backoff import StartBackoff

VM, OTHER = UUID(int=1), UUID(int=2)


def restart(restraint: StartBackoff, times: int, lives: float = 0.0, now: float = 1000.0) -> list[float]:
    """The pauses before so many starts of a guest that lives so long each time."""
    pauses = []
    for _ in range(times):
        pause = restraint.pause(VM, 1, now)
        pauses.append(pause)
        now += pause
        assert restraint.pause(VM, 1, now) == 0
        restraint.started(VM, 1, now)
        now += lives
    return pauses


def test_the_first_two_starts_are_at_once_and_then_the_pauses_grow_to_a_limit() -> None:
    assert restart(StartBackoff(), 10) == [0, 0, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_pauses_stay_bounded_for_ever() -> None:
    assert set(restart(StartBackoff(), 2000)[8:]) == {60}


def test_a_pause_that_took_a_little_longer_is_no_good_run() -> None:
    restraint, now = StartBackoff(), 0.0
    for _ in range(8):
        now += restraint.pause(VM, 1, now) + 0.01
        restraint.started(VM, 1, now)
    assert restraint.pause(VM, 1, now + 60.01) == 0
    restraint.started(VM, 1, now + 60.01)
    assert restraint.pause(VM, 1, now + 60.01) == 60


def test_what_a_guest_lived_counts_as_a_part_of_the_pause() -> None:
    assert restart(StartBackoff(), 5, lives=3.0) == [0, 0, 0, 1, 5]


def test_a_good_run_begins_anew() -> None:
    restraint = StartBackoff()
    restart(restraint, 4, now=0.0)
    assert restraint.pause(VM, 1, 6.0) == 8
    assert restart(restraint, 3, now=1000.0) == [0, 0, 2]


def test_another_request_begins_anew() -> None:
    restraint = StartBackoff()
    restart(restraint, 6)
    assert restraint.pause(VM, 2, 1000.0) == 0
    restraint.started(VM, 2, 1000.0)
    restraint.started(VM, 2, 1000.0)
    assert restraint.pause(VM, 2, 1000.0) == 2


def test_each_vm_counts_for_itself_and_one_that_is_gone_is_forgotten() -> None:
    restraint = StartBackoff()
    restart(restraint, 6)
    assert restraint.pause(OTHER, 1, 1000.0) == 0
    restraint.forget(VM)
    restraint.forget(OTHER)
    assert restraint.pause(VM, 1, 1000.0) == 0
