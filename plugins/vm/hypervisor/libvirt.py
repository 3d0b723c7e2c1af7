"""The real hypervisor: libvirtd, called in a bounded pool of threads, with events from libvirt's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from uuid import UUID

import libvirt
from lxml import etree

from pvcd_plugins.vm.domain import generation_of
from pvcd_plugins.vm.hypervisor import (
    Capabilities,
    Guest,
    GuestState,
    HypervisorError,
    HypervisorUnavailable,
    Listener,
)

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.2, 2.0
"""Between attempts to connect."""
KEEPALIVE = (5, 3)
"""Seconds between probes of a silent libvirtd, and how many probes may go unanswered."""

_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_RUNNING: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: GuestState.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_CRASHED: GuestState.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF: GuestState.OFF,
}


class _Link:
    """A connection with a count of its users, and what is valid only for this connection.

    The last user closes it, in a thread, because closing waits for libvirtd. It must not be closed during the call of
    another thread: libvirt would free it there. The first user is the task that keeps the connection.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.generations: dict[UUID, tuple[int, int | None]] = {}
        """Each guest's ID in libvirt, which differs from run to run, and its generation."""
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


class LibvirtHypervisor:
    """A libvirtd. A lost connection is made again, without limit."""

    def __init__(self, uri: str, *, deadline: float = 10.0, threads: int = 4) -> None:
        self._uri = uri
        self._deadline = deadline
        self._threads = threads
        self._listeners: list[Listener] = []
        self._link: _Link | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """True while there is a connection."""
        return self._link is not None

    async def open(self) -> None:
        """Begin to hold a connection; return after the first attempt, even if it failed."""
        _run_event_loop()
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
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def listen(self, callback: Listener) -> None:
        """Call `callback` after each change of a guest, and with None when the connection is made or lost."""
        self._listeners.append(callback)

    async def domains(self) -> dict[UUID, Guest]:
        """Return all guests."""
        return await self._call("list the guests", _domains)

    async def look(self, uuid: UUID) -> Guest | None:
        """Return one guest, or None if libvirt does not know it."""
        return await self._call("look at the guest", _look, uuid)

    async def set_secret(self, uuid: UUID, usage: str, value: bytes) -> None:
        """Store a Ceph key until libvirtd ends."""
        await self._call("store the key of Ceph", _set_secret, uuid, usage, value)

    async def start(self, xml: str) -> None:
        """Start a transient guest from its document; an error if it runs already."""
        await self._call("start the guest", _start, xml)

    async def shutdown(self, uuid: UUID) -> None:
        """Press the guest's power button, and return at once; no effect if it is gone."""
        await self._call("shut down the guest", _shutdown, uuid)

    async def destroy(self, uuid: UUID) -> None:
        """End the guest at once, and return when it is gone; no effect if it is gone already."""
        async with _limit(self._deadline, "stop the guest"):
            while not await self._call("stop the guest", _destroy, uuid):  # noqa: ASYNC110 (no event tells)
                await asyncio.sleep(0.05)

    async def capabilities(self) -> Capabilities:
        """Return the kinds of guests that can run here."""
        return await self._call("read the capabilities of libvirt", _capabilities)

    async def _call(
        self, verb: str, function: Callable[Concatenate[_Link, P], T], *arguments: P.args, **options: P.kwargs
    ) -> T:
        """Run a blocking function of the link in the pool. After a timeout it may still take effect."""
        link, pool = self._link, self._pool
        if link is None or pool is None:
            raise HypervisorUnavailable(f"Cannot {verb}: there is no connection to libvirtd.")
        call = partial(_answer, link, verb, partial(function, link, *arguments, **options))
        async with _limit(self._deadline, verb):
            return await asyncio.get_running_loop().run_in_executor(pool, call)

    async def _keep(self, tried: asyncio.Event) -> None:
        """Hold a connection until canceled."""
        pause, logged = FIRST_PAUSE_SECONDS, False
        while True:
            lost = asyncio.Event()
            try:
                link = await self._connect(lost)
            except libvirt.libvirtError as error:
                if not logged:
                    log.warning("Cannot connect to libvirtd, retrying: %s", _message(error))
                logged = True
                tried.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, MAX_PAUSE_SECONDS)
                continue
            await self._use(link, lost, tried)
            pause, logged = FIRST_PAUSE_SECONDS, False

    async def _connect(self, lost: asyncio.Event) -> _Link:
        """Connect without a time limit: a suspended libvirtd answers late, and another attempt would not be faster."""
        loop = asyncio.get_running_loop()
        changed, gone = partial(_from_thread, loop, self._notify), partial(_from_thread, loop, lost.set)
        return await _in_own_thread(lambda: _open(self._uri, changed, gone), undo=_release)

    async def _use(self, link: _Link, lost: asyncio.Event, tried: asyncio.Event) -> None:
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
                    await _in_own_thread(lambda: _release(link))
        self._notify(None)

    def _notify(self, uuid: UUID | None) -> None:
        if self._keeper is not None:
            for listener in self._listeners:
                listener(uuid)


def _answer(link: _Link, verb: str, call: Callable[[], T]) -> T:
    """Run a call in a thread; raise errors without a traceback, which would keep domains and so the connection."""
    with link:
        try:
            return call()
        except libvirt.libvirtError as error:
            kind = HypervisorError if link.connection.isAlive() else HypervisorUnavailable
            failure = kind(f"Cannot {verb}: libvirt reports: {_message(error)}.")
    raise failure


def _domains(link: _Link) -> dict[UUID, Guest]:
    guests = (_unless_gone(_guest, link, domain) for domain in link.connection.listAllDomains())
    found = {guest.uuid: guest for guest in guests if guest is not None}
    for uuid in link.generations.keys() - found.keys():
        link.generations.pop(uuid, None)
    return found


def _look(link: _Link, uuid: UUID) -> Guest | None:
    domain = _unless_gone(link.connection.lookupByUUID, uuid.bytes)
    return None if domain is None else _unless_gone(_guest, link, domain)


def _guest(link: _Link, domain: Any) -> Guest:
    uuid, run = UUID(bytes=domain.UUID()), domain.ID()
    state, memory, _, vcpus, _ = domain.info()
    known = link.generations.get(uuid)
    if known is None or known[0] != run:
        known = link.generations[uuid] = (run, generation_of(domain.XMLDesc(0)))
    return Guest(
        uuid=uuid,
        name=domain.name(),
        state=_STATES.get(state, GuestState.RUNNING),
        generation=known[1],
        memory=memory // 1024,
        vcpus=vcpus,
    )


def _set_secret(link: _Link, uuid: UUID, usage: str, value: bytes) -> None:
    secret = etree.Element("secret", {"ephemeral": "yes", "private": "yes"})
    etree.SubElement(secret, "uuid").text = str(uuid)
    etree.SubElement(etree.SubElement(secret, "usage", {"type": "ceph"}), "name").text = usage
    link.connection.secretDefineXML(etree.tostring(secret, encoding="unicode")).setValue(value)


def _start(link: _Link, xml: str) -> None:
    link.connection.createXML(xml, 0)


def _shutdown(link: _Link, uuid: UUID) -> None:
    domain = _running(link, uuid)
    if domain is not None:
        _unless_gone(domain.shutdownFlags, libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)


def _destroy(link: _Link, uuid: UUID) -> bool:
    """End a guest; return whether it is gone."""
    domain = _running(link, uuid)
    if domain is not None:
        _unless_gone(domain.destroy)
    return domain is None or _running(link, uuid) is None


def _running(link: _Link, uuid: UUID) -> Any:
    """Return the domain if it runs."""
    domain = _unless_gone(link.connection.lookupByUUID, uuid.bytes)
    return domain if domain is not None and _unless_gone(domain.isActive) else None


def _capabilities(link: _Link) -> Capabilities:
    root = etree.fromstring(link.connection.getCapabilities())
    arch = root.findtext("host/cpu/arch", "")
    own = [guest.find("arch") for guest in root.findall("guest") if guest.findtext("os_type") == "hvm"]
    guests = [guest for guest in own if guest is not None and guest.get("name") == arch]

    def every(path: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(element.text or "" for guest in guests for element in guest.iterfind(path)))

    types = (domain.get("type", "") for guest in guests for domain in guest.iterfind("domain"))
    return Capabilities(tuple(dict.fromkeys(types)), every(".//emulator"), arch, every(".//machine"))


def _unless_gone(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
    """Return the result of a call about a guest; None if the guest is gone or does not run."""
    try:
        return function(*arguments, **options)
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            return None
        raise


def _open(uri: str, changed: Callable[[UUID], None], gone: Callable[[], None]) -> _Link:
    """Connect, and register callbacks for changes of guests and the end of the connection."""
    link = _Link(libvirt.open(uri))
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
        _release(link)
        raise
    return link


def _release(link: _Link) -> None:
    """Remove the callbacks, which keep the connection, and release it.

    On a lost connection they cannot be removed, and are gone with it.
    """
    if link.events is not None:
        with contextlib.suppress(libvirt.libvirtError):
            link.connection.domainEventDeregisterAny(link.events)
    with contextlib.suppress(libvirt.libvirtError):
        link.connection.unregisterCloseCallback()
    link.__exit__()


def _message(error: libvirt.libvirtError) -> str:
    """Return libvirt's own words on one line."""
    return " ".join((error.get_error_message() or str(error)).split()).rstrip(".")


@asynccontextmanager
async def _limit(seconds: float, verb: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise HypervisorUnavailable(f"Cannot {verb}: libvirt did not answer within {seconds:g} s.") from None


def _from_thread(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(function, *arguments)


async def _in_own_thread(function: Callable[[], T], undo: Callable[[T], None] = lambda _: None) -> T:
    """Run a function that may block for long in a daemon thread, which does not delay the end of the process."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            result = function()
        except libvirt.libvirtError as error:
            with contextlib.suppress(InvalidStateError):
                outcome.set_exception(error)
            return
        try:
            outcome.set_result(result)
        except InvalidStateError:  # the caller was canceled
            undo(result)

    threading.Thread(target=work, name="libvirt connection", daemon=True).start()
    return await asyncio.wrap_future(outcome)


@cache
def _run_event_loop() -> None:
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
