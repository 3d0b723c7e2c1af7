"""Connections to libvirtd: opened, shared, kept alive and closed; and libvirt's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from functools import cache
from typing import Any, Self, TypeVar
from uuid import UUID

import libvirt

from pvcd_plugins.vm.hypervisor import HypervisorError, HypervisorUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

KEEPALIVE = (5, 3)
"""Seconds between probes of a silent libvirtd, and how many probes may go unanswered."""


class Link:
    """A connection with a count of its users, and what is valid only for this connection.

    The last user closes it, in a thread, because closing waits for libvirtd. It must not be closed during the call of
    another thread: libvirt would free it there. The first user is the task that keeps the connection.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.generations: dict[UUID, tuple[int, int | None]] = {}
        """Each guest's ID in libvirt, which differs from run to run, and its generation."""
        self.unreadable: set[tuple[UUID, int]] = set()
        """The guests, with their ID in libvirt, of which the log tells that they cannot be read."""
        self.events: int | None = None
        """The ID of the callback for events."""
        self._users = 1
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with self._lock:
            if not self._users:
                raise HypervisorUnavailable("The connection to libvirtd was lost.")
            self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            last = not self._users
        if last:
            with contextlib.suppress(libvirt.libvirtError):
                self.connection.close()


def connect(uri: str, changed: Callable[[UUID], None], gone: Callable[[], None]) -> Link:
    """Connect, and register callbacks for changes of guests and the end of the connection."""
    link = Link(libvirt.open(uri))
    try:
        link.connection.setKeepAlive(*KEEPALIVE)
        link.connection.registerCloseCallback(lambda _connection, _reason, _opaque: gone(), None)
        link.events = link.connection.domainEventRegisterAny(
            None,
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            lambda _connection, domain, _event, _detail, _opaque: changed(UUID(bytes=domain.UUID())),
            None,
        )
    except libvirt.libvirtError:
        release(link)
        raise
    return link


def release(link: Link) -> None:
    """Remove the callbacks, which keep the connection, and release it.

    On a lost connection they cannot be removed, and are gone with it.
    """
    if link.events is not None:
        with contextlib.suppress(libvirt.libvirtError):
            link.connection.domainEventDeregisterAny(link.events)
    with contextlib.suppress(libvirt.libvirtError):
        link.connection.unregisterCloseCallback()
    link.__exit__()


def answer(link: Link, verb: str, call: Callable[[], T]) -> T:
    """Run a call in a thread; raise errors without a traceback, which would keep domains and so the connection."""
    with link:
        try:
            return call()
        except libvirt.libvirtError as error:
            kind = HypervisorError if link.connection.isAlive() else HypervisorUnavailable
            failure = kind(f"Cannot {verb}: libvirt reports: {message(error)}.")
    raise failure


def answer_alone(uri: str, verb: str, call: Callable[[Link], T]) -> T:
    """Run a call in a thread and on a connection of its own."""
    try:
        link = Link(libvirt.open(uri))
    except libvirt.libvirtError as error:
        raise HypervisorUnavailable(f"Cannot {verb}: libvirt reports: {message(error)}.") from None
    try:
        with contextlib.suppress(libvirt.libvirtError):
            link.connection.setKeepAlive(*KEEPALIVE)
        return answer(link, verb, lambda: call(link))
    finally:
        link.__exit__()


def message(error: libvirt.libvirtError) -> str:
    """Return libvirt's own words on one line."""
    return " ".join((error.get_error_message() or str(error)).split()).rstrip(".")


def from_thread(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
    """Call a function in the event loop, if there still is one."""
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(function, *arguments)


async def in_own_thread(function: Callable[[], T], undo: Callable[[T], None] = lambda _: None) -> T:
    """Run a function that may block for long in a daemon thread, which does not delay the end of the process."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            result = function()
        except Exception as error:
            with contextlib.suppress(InvalidStateError):
                outcome.set_exception(error)
            return
        try:
            outcome.set_result(result)
        except InvalidStateError:  # the caller was canceled
            undo(result)

    threading.Thread(target=work, name="libvirt", daemon=True).start()
    return await asyncio.wrap_future(outcome)


@cache
def run_event_loop() -> None:
    """Start libvirt's event loop, once per process and before the first connection."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # libvirt would write each error to stderr
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_events, name="libvirt events", daemon=True).start()


def _events() -> None:
    pause = threading.Event()
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except Exception:
            log.exception("libvirt's event loop failed")
            pause.wait(0.1)
