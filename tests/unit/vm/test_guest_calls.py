"""Calls that wait for a guest's QEMU: at most one per guest, and a limited number of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from pvcd.clock import settle
from pvcd_plugins.vm.hypervisor import HypervisorUnavailable
from pvcd_plugins.vm.hypervisor import calls as module
from pvcd_plugins.vm.hypervisor.calls import STARTS, GuestCalls


class Bench:
    """Starts of guests, which return when the test says so."""

    def __init__(self) -> None:
        self.calls = GuestCalls("test:///default", 0.05, 600.0, lambda uuid: None)
        self.begun: list[UUID] = []
        self.end = asyncio.Event()

    async def in_thread(self, function: Callable[[], Any]) -> None:
        function()
        await self.end.wait()

    def start(self, uuid: UUID) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.calls.start(uuid, lambda link: self.begun.append(uuid)))


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    bench = Bench()
    monkeypatch.setattr(module, "in_own_thread", bench.in_thread)
    monkeypatch.setattr(module, "answer_alone", lambda uri, verb, call: call(None))
    yield bench
    await bench.calls.close()


async def test_a_start_whose_caller_is_gone_never_begins(bench: Bench) -> None:
    others = [bench.start(uuid4()) for _ in range(STARTS)]
    await settle()
    late = bench.start(uuid4())
    await settle()
    late.cancel()
    await asyncio.gather(*others, late, return_exceptions=True)
    assert len(bench.begun) == STARTS
    bench.end.set()
    await settle()
    assert len(bench.begun) == STARTS


async def test_a_call_that_waits_for_others_is_not_blamed_on_its_own_guest(bench: Bench) -> None:
    others = [bench.start(uuid4()) for _ in range(STARTS)]
    await settle()
    uuid = uuid4()
    first, second = bench.start(uuid), bench.start(uuid)
    _, _, *errors = await asyncio.gather(*others[:2], first, second, return_exceptions=True)
    for error in errors:
        assert isinstance(error, HypervisorUnavailable)
        assert error.sentence == "Cannot start the guest: too many other guests do not answer."
    await asyncio.gather(*others, return_exceptions=True)
