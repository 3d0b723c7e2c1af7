"""The real hypervisor: libvirtd.

Questions to libvirtd alone share one connection and a pool of threads. What waits for a guest's QEMU does not, since
that may never answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID, uuid4

import libvirt

from pvcd import Invalid
from pvcd_plugins.vm.domain import parse
from pvcd_plugins.vm.hypervisor import (
    Capabilities,
    Guest,
    GuestState,
    HypervisorError,
    HypervisorUnavailable,
    Listener,
    guests,
)
from pvcd_plugins.vm.hypervisor.calls import GuestCalls
from pvcd_plugins.vm.hypervisor.connection import (
    Link,
    answer,
    connect,
    from_thread,
    in_own_thread,
    message,
    release,
    run_event_loop,
)
from pvcd_plugins.vm.hypervisor.nonvolatile import NonvolatileState

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.2, 2.0
"""Between attempts to connect."""


class LibvirtHypervisor:
    """A libvirtd. A lost connection is made again, without limit."""

    def __init__(
        self, uri: str, state: NonvolatileState, *, deadline: float = 10.0, silent_after: float = 10.0, threads: int = 4
    ) -> None:
        """Open nothing yet; a QEMU that has not answered within `silent_after` is one that hangs."""
        self._uri = uri
        self._state = state
        self._deadline = deadline
        self._threads = threads
        self._listeners: list[Listener] = []
        self._calls = GuestCalls(uri, deadline, silent_after, self._notify)
        self._link: Link | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """True while there is a connection."""
        return self._link is not None

    async def open(self) -> None:
        """Begin to hold a connection; return after the first attempt, even if it failed."""
        run_event_loop()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="libvirt")
        tried = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep(tried), name="libvirt connection")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._deadline):
                await tried.wait()

    async def close(self) -> None:
        """Close the connection; guests run on."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        await self._calls.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def listen(self, callback: Listener) -> None:
        """Call `callback` after each change of a guest, and with None when the connection is made or lost."""
        self._listeners.append(callback)

    async def domains(self) -> dict[UUID, Guest]:
        """Return all guests."""
        return await self._call("list the guests", guests.domains)

    async def look(self, uuid: UUID) -> Guest | None:
        """Return one guest, or None if libvirt does not know it."""
        guest = await self._call("look at the guest", guests.look, uuid)
        if guest is None or guest.state is GuestState.OFF:
            self._calls.forget(uuid)
            return guest
        self._calls.probe(uuid)
        return replace(guest, problem=guest.problem or self._calls.problem(uuid))

    async def set_secret(self, uuid: UUID, usage: str, value: bytes) -> None:
        """Store a Ceph key until libvirtd ends."""
        await self._call("store the key of Ceph", guests.set_secret, uuid, usage, value)

    async def start(self, xml: str) -> None:
        """Start a transient guest from its document; an error if it runs already."""
        self._need("start the guest")
        try:
            uuid = parse(xml).uuid
        except Invalid:
            uuid = uuid4()  # libvirt says better what is wrong
        else:
            xml = await _with_files("start the guest", self._state.keep, uuid, xml)
        await self._calls.start(uuid, partial(guests.start, xml=xml))

    async def shutdown(self, uuid: UUID) -> None:
        """Press the guest's power button, and return at once; no effect if it is gone."""
        self._need("shut down the guest")
        await self._calls.ask(uuid, "shut down the guest", partial(guests.shutdown, uuid=uuid))

    async def destroy(self, uuid: UUID) -> None:
        """End the guest at once, and return when it is gone; no effect if it is gone already."""
        self._need("stop the guest")
        await self._calls.destroy(uuid)

    async def kept(self) -> set[UUID]:
        """Return the guests of which there is state on this node."""
        return await _with_files("list the state of guests", self._state.kept)

    async def forget(self, uuid: UUID) -> None:
        """Remove the state of a guest that is gone for ever; no effect if there is none."""
        await _with_files("remove the state of the guest", self._state.forget, uuid)

    async def capabilities(self) -> Capabilities:
        """Return the kinds of guests that can run here."""
        return await self._call("read the capabilities of libvirt", guests.capabilities)

    async def _call(
        self, verb: str, function: Callable[Concatenate[Link, P], T], *arguments: P.args, **options: P.kwargs
    ) -> T:
        """Run a blocking function of the link in the pool. After a timeout it may still take effect."""
        link, pool = self._need(verb)
        call = partial(answer, link, verb, partial(function, link, *arguments, **options))
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.get_running_loop().run_in_executor(pool, call)
        except TimeoutError:
            raise HypervisorUnavailable(f"Cannot {verb}: libvirt did not answer within {self._deadline:g} s.") from None

    def _need(self, verb: str) -> tuple[Link, ThreadPoolExecutor]:
        if self._link is None or self._pool is None:
            raise HypervisorUnavailable(f"Cannot {verb}: there is no connection to libvirtd.")
        return self._link, self._pool

    async def _keep(self, tried: asyncio.Event) -> None:
        """Hold a connection until canceled."""
        pause, logged = FIRST_PAUSE_SECONDS, False
        while True:
            lost = asyncio.Event()
            try:
                link = await self._connect(lost)
            except libvirt.libvirtError as error:
                if not logged:
                    log.warning("Cannot connect to libvirtd, retrying: %s", message(error))
                logged = True
                tried.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, MAX_PAUSE_SECONDS)
                continue
            await self._use(link, lost, tried)
            pause, logged = FIRST_PAUSE_SECONDS, False

    async def _connect(self, lost: asyncio.Event) -> Link:
        """Connect without a time limit: a suspended libvirtd answers late, and another attempt would not be faster."""
        loop = asyncio.get_running_loop()
        changed, gone = partial(from_thread, loop, self._notify), partial(from_thread, loop, lost.set)
        return await in_own_thread(lambda: connect(self._uri, changed, gone), undo=release)

    async def _use(self, link: Link, lost: asyncio.Event, tried: asyncio.Event) -> None:
        """Make a connection available until it is lost."""
        self._link = link
        try:
            log.info("Connected to libvirtd at %s.", self._uri)
            self._notify(None)
            tried.set()
            await lost.wait()
            log.warning("The connection to libvirtd was lost.")
        finally:
            self._link = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._deadline):
                    await in_own_thread(lambda: release(link))
        self._notify(None)

    def _notify(self, uuid: UUID | None) -> None:
        if self._keeper is not None:
            for listener in self._listeners:
                listener(uuid)


async def _with_files(verb: str, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    try:
        return await asyncio.to_thread(function, *arguments, **options)
    except OSError as error:
        raise HypervisorError(f"Cannot {verb}: {error.filename}: {error.strerror}.") from error
