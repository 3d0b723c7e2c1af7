"""Calls that wait for a guest's QEMU, at most one per guest, each in a thread and on a connection of its own.

A QEMU that hangs holds such a call for ever. On a shared connection five of them would hold up all others, which is
what libvirtd serves of a connection at a time (`max_client_requests`); it has 20 threads for all (`max_workers`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from pvcd_plugins.vm.hypervisor import GuestSilent, HypervisorUnavailable, guests
from pvcd_plugins.vm.hypervisor.connection import Link, answer_alone, in_own_thread
from pvcd_plugins.vm.hypervisor.qemu import kill_qemu

STARTS, QUESTIONS = 6, 8
"""How many calls of each kind may be under way: together fewer than libvirtd has threads."""
KILL_AFTER_SECONDS = 2.0
"""The time that a QEMU has to end. libvirtd waits for 10 s, during which it lists no guests and starts no other."""
DESTROY_SECONDS = 30.0
PROBE_SECONDS = 25.0
"""How long an answer of a QEMU counts: less than the pause between two looks at a VM."""


@dataclass(eq=False)
class _Call:
    """A call that has not returned; it holds its slot until it does, also when nothing waits for it any more."""

    since: float | None = None
    """Seconds since 1970 when it was sent; None while it waits for a slot."""
    silent: bool = False

    def unanswered(self, verb: str) -> GuestSilent | HypervisorUnavailable:
        """Return the error for who has waited for this call in vain."""
        if self.since is None:
            return HypervisorUnavailable(f"Cannot {verb}: too many other guests do not answer.")
        since = datetime.fromtimestamp(self.since, UTC)
        return GuestSilent(f"Cannot {verb}: its QEMU has not answered since {since:%Y-%m-%dT%H:%M:%SZ}.")


class GuestCalls:
    """The calls under way, and what is known from them."""

    def __init__(self, uri: str, deadline: float, silent_after: float, changed: Callable[[UUID], None]) -> None:
        """`changed` is called when a QEMU is found to hang, and when it has answered after that."""
        self._uri = uri
        self._deadline = deadline
        self._silent_after = silent_after
        self._changed = changed
        self._calls: dict[UUID, tuple[_Call, asyncio.Task[None]]] = {}
        self._destroys: dict[UUID, asyncio.Task[None]] = {}
        self._answered: dict[UUID, float] = {}
        """When the QEMU of each guest answered last, by the monotonic clock."""
        self._starts, self._questions = asyncio.Semaphore(STARTS), asyncio.Semaphore(QUESTIONS)

    async def close(self) -> None:
        """Wait for no call any more; each may still take effect."""
        tasks = [*(task for _, task in self._calls.values()), *self._destroys.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def problem(self, uuid: UUID) -> str | None:
        """Return what is wrong with a guest's QEMU, as a sentence."""
        call, _ = self._calls.get(uuid, (None, None))
        return call.unanswered("control the guest").sentence if call is not None and call.silent else None

    def probe(self, uuid: UUID) -> None:
        """Ask a guest's QEMU whether it answers, unless that is known or too many others do not; do not wait."""
        answered = self._answered.get(uuid)
        known = answered is not None and time.monotonic() - answered < PROBE_SECONDS
        if not known and uuid not in self._calls and not self._questions.locked():
            self._send(uuid, self._questions, "ask the guest", partial(guests.ask, uuid=uuid))

    def forget(self, uuid: UUID) -> None:
        """Forget the last answer of a guest that is gone."""
        self._answered.pop(uuid, None)

    async def ask(self, uuid: UUID, verb: str, function: Callable[[Link], None]) -> None:
        """Run a call that a guest's QEMU must answer."""
        await self._run(uuid, self._questions, self._silent_after, verb, function)

    async def start(self, uuid: UUID, function: Callable[[Link], None]) -> None:
        """Run the call that starts a guest."""
        await self._run(uuid, self._starts, self._deadline, "start the guest", function)

    async def destroy(self, uuid: UUID) -> None:
        """End a guest, also one that hangs; two calls at the same time are one."""
        task = self._destroys.get(uuid)
        if task is None:
            task = self._destroys[uuid] = asyncio.create_task(self._destroy(uuid), name=f"end of {uuid}")
            task.add_done_callback(lambda ended: (self._destroys.pop(uuid), ended.cancelled() or ended.exception()))
        if not (await asyncio.wait([task], timeout=DESTROY_SECONDS))[0]:
            raise GuestSilent(f"Cannot stop the guest: its QEMU did not end within {DESTROY_SECONDS:g} s.")
        task.result()

    async def _destroy(self, uuid: UUID) -> None:
        if self.problem(uuid) is not None:
            await asyncio.to_thread(kill_qemu, uuid)
        call = partial(answer_alone, self._uri, "stop the guest", partial(guests.destroy, uuid=uuid))
        ending = asyncio.create_task(in_own_thread(call), name=f"call about {uuid}")
        try:
            if not (await asyncio.wait([ending], timeout=KILL_AFTER_SECONDS))[0]:
                await asyncio.to_thread(kill_qemu, uuid)
            await ending
        finally:
            ending.cancel()

    async def _run(
        self, uuid: UUID, slots: asyncio.Semaphore, seconds: float, verb: str, function: Callable[[Link], None]
    ) -> None:
        """Run a call once the last one about the guest has returned; refuse it if that one was not answered in time."""
        while uuid in self._calls:
            call, task = self._calls[uuid]
            if call.silent or not (await asyncio.wait([task], timeout=seconds))[0]:
                raise call.unanswered(verb)
        call, task = self._send(uuid, slots, verb, function)
        try:
            if not (await asyncio.wait([task], timeout=seconds))[0]:
                raise call.unanswered(verb)
        finally:
            if call.since is None:  # what nothing waits for must not begin later
                task.cancel()
        task.result()

    def _send(
        self, uuid: UUID, slots: asyncio.Semaphore, verb: str, function: Callable[[Link], None]
    ) -> tuple[_Call, asyncio.Task[None]]:
        call = _Call()
        work = self._work(uuid, call, slots, partial(answer_alone, self._uri, verb, function))
        task = asyncio.create_task(work, name=f"call about {uuid}")
        self._calls[uuid] = call, task
        task.add_done_callback(partial(self._ended, uuid, call))
        return call, task

    async def _work(self, uuid: UUID, call: _Call, slots: asyncio.Semaphore, function: Callable[[], None]) -> None:
        async with slots:
            call.since = time.time()
            timer = asyncio.get_running_loop().call_later(self._silent_after, self._hangs, uuid, call)
            try:
                await in_own_thread(function)
            finally:
                timer.cancel()

    def _hangs(self, uuid: UUID, call: _Call) -> None:
        call.silent = True
        self._changed(uuid)

    def _ended(self, uuid: UUID, call: _Call, task: asyncio.Task[None]) -> None:
        del self._calls[uuid]
        if task.cancelled():
            return
        if task.exception() is None:
            self._answered[uuid] = time.monotonic()
        if call.silent:
            self._changed(uuid)
