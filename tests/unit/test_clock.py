"""The virtual clock of tests."""

from __future__ import annotations

import asyncio
import time

from pvcd.clock import SystemClock, VirtualClock, settle


async def test_time_stands_still_until_it_is_advanced() -> None:
    clock = VirtualClock(100.0)
    sleeping = asyncio.ensure_future(clock.sleep(5))
    await settle()
    assert (clock.time(), sleeping.done()) == (100.0, False)
    await clock.advance(4.9)
    assert not sleeping.done()
    await clock.advance(0.1)
    assert (clock.time(), sleeping.done()) == (105.0, True)


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    clock = VirtualClock(0.0)
    woken: list[tuple[str, float]] = []

    async def sleep(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.time()))

    tasks = [asyncio.ensure_future(sleep("a", 3, 3)), asyncio.ensure_future(sleep("b", 2, 2, 2))]
    await clock.advance(10)
    await asyncio.gather(*tasks)
    assert woken == [("b", 2), ("a", 3), ("b", 4), ("a", 6), ("b", 6)]
    assert clock.monotonic() == 10


async def test_cancelled_sleeper_does_not_disturb_others() -> None:
    clock = VirtualClock()
    cancelled, other = asyncio.ensure_future(clock.sleep(1)), asyncio.ensure_future(clock.sleep(1))
    await settle()
    cancelled.cancel()
    await clock.advance(2)
    assert other.done()


async def test_sleep_of_zero_or_negative_time_returns_at_once() -> None:
    clock = VirtualClock()
    sleeping = [asyncio.ensure_future(clock.sleep(seconds)) for seconds in (0, -5)]
    await clock.advance(0)
    assert all(task.done() for task in sleeping)


async def test_system_clock_follows_the_machine() -> None:
    clock = SystemClock()
    before, steady = clock.time(), clock.monotonic()
    await clock.sleep(0)
    assert steady <= clock.monotonic() <= time.monotonic()
    assert abs(clock.time() - before) < 60
