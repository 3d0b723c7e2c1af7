"""StartBackoff: the pauses before the next starts of a guest that ends."""

from __future__ import annotations

from uuid import UUID

from pvcd_plugins.vm.backoff import StartBackoff

VM, OTHER = UUID(int=1), UUID(int=2)


def restart(restraint: StartBackoff, times: int, lives: float = 0.0, now: float = 1000.0) -> list[float]:
    """Return the pauses before a number of starts of a guest that runs for the same time after each."""
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


def test_the_pauses_stay_bounded() -> None:
    assert set(restart(StartBackoff(), 2000)[8:]) == {60}


def test_a_pause_slightly_too_long_is_not_a_good_run() -> None:
    restraint, now = StartBackoff(), 0.0
    for _ in range(8):
        now += restraint.pause(VM, 1, now) + 0.01
        restraint.started(VM, 1, now)
    assert restraint.pause(VM, 1, now + 60.01) == 0
    restraint.started(VM, 1, now + 60.01)
    assert restraint.pause(VM, 1, now + 60.01) == 60


def test_the_run_time_of_a_guest_counts_toward_the_pause() -> None:
    assert restart(StartBackoff(), 5, lives=3.0) == [0, 0, 0, 1, 5]


def test_a_good_run_resets_the_count() -> None:
    restraint = StartBackoff()
    restart(restraint, 4, now=0.0)
    assert restraint.pause(VM, 1, 6.0) == 8
    assert restart(restraint, 3, now=1000.0) == [0, 0, 2]


def test_a_new_request_resets_the_count() -> None:
    restraint = StartBackoff()
    restart(restraint, 6)
    assert restraint.pause(VM, 2, 1000.0) == 0
    restraint.started(VM, 2, 1000.0)
    restraint.started(VM, 2, 1000.0)
    assert restraint.pause(VM, 2, 1000.0) == 2


def test_each_vm_has_its_own_count_which_is_forgotten_with_it() -> None:
    restraint = StartBackoff()
    restart(restraint, 6)
    assert restraint.pause(OTHER, 1, 1000.0) == 0
    restraint.forget(VM)
    restraint.forget(OTHER)
    assert restraint.pause(VM, 1, 1000.0) == 0
