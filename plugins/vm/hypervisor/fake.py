"""A hypervisor in memory, for tests and simulations, whose guests behave and fail as scripted."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn
from uuid import UUID

from pvcd import Clock, Invalid
from pvcd_plugins.vm import domain
from pvcd_plugins.vm.hypervisor import (
    Capabilities,
    Guest,
    GuestSilent,
    GuestState,
    HypervisorError,
    HypervisorUnavailable,
    Listener,
)
from pvcd_plugins.vm.hypervisor.nonvolatile import kept_at

_SECRET = re.compile(r"""<secret [^>]*uuid=["']([^"']+)""")
CAPABILITIES = Capabilities(("qemu", "kvm"), ("/usr/bin/qemu-system-x86_64",), "x86_64", ("pc", "q35"))


class FakeHypervisor:
    """Guests that exist in name only. Public names beyond the protocol are for the script of a test."""

    def __init__(
        self,
        clock: Clock,
        *,
        shutdown_seconds: float = 1.0,
        capabilities: Capabilities = CAPABILITIES,
    ) -> None:
        self.ignores_shutdown: set[UUID] = set()
        self.shutdown_seconds = shutdown_seconds
        """The time that a guest takes to shut down."""
        self.fail_start: str | None = None
        """The reason why no guest can be started, if it is set."""
        self.started: list[str] = []
        """The document of each successful start."""
        self.secrets: dict[UUID, bytes] = {}
        """UUID -> Ceph key."""
        self._kept: set[UUID] = set()
        self._hangs: dict[UUID, str] = {}
        self._clock = clock
        self._capabilities = capabilities
        self._guests: dict[UUID, Guest] = {}
        self._listeners: list[Listener] = []
        self._running = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shutdowns: dict[UUID, asyncio.Task[None]] = {}

    def kill(self, uuid: UUID) -> None:
        """End a guest, as if its process had been killed."""
        self._remove(uuid)

    def pause(self, uuid: UUID) -> None:
        """Pause a guest, as if it had been suspended."""
        self._guests[uuid] = replace(self._guests[uuid], state=GuestState.PAUSED)
        self._notify(uuid)

    def hang(self, uuid: UUID) -> None:
        """Let a guest's QEMU answer no more."""
        since = datetime.fromtimestamp(self._clock.time(), UTC)
        self._hangs[uuid] = f"its QEMU has not answered since {since:%Y-%m-%dT%H:%M:%SZ}."
        self._guests[uuid] = replace(self._guests[uuid], problem=f"Cannot control the guest: {self._hangs[uuid]}")
        self._notify(uuid)

    def spoil(self, uuid: UUID) -> None:
        """Let a guest's document be one that cannot be read."""
        problem = "Cannot read the guest: The XML is not well-formed: line 1: scripted."
        self._guests[uuid] = replace(self._guests[uuid], generation=None, problem=problem)
        self._notify(uuid)

    def stop(self) -> None:
        """Stop the hypervisor; its guests run on."""
        self._notify(None)
        self._running = False
        self.secrets.clear()

    def start_again(self) -> None:
        """Start the hypervisor again."""
        self._running = True
        self._notify(None)

    @property
    def connected(self) -> bool:
        """True while there is a connection."""
        return self._running and self._loop is not None

    async def open(self) -> None:
        """Connect."""
        self._loop = asyncio.get_running_loop()
        self._notify(None)

    async def close(self) -> None:
        """Close the connection; guests run on."""
        self._loop = None
        shutdowns = list(self._shutdowns.values())
        self._shutdowns.clear()
        for shutdown in shutdowns:
            shutdown.cancel()
        await asyncio.gather(*shutdowns, return_exceptions=True)

    def listen(self, callback: Listener) -> None:
        """Call `callback` after each change of a guest, and with None when the hypervisor stops or starts."""
        self._listeners.append(callback)

    async def domains(self) -> dict[UUID, Guest]:
        """Return all guests."""
        self._need("list the guests")
        return dict(self._guests)

    async def look(self, uuid: UUID) -> Guest | None:
        """Return one guest, or None."""
        self._need("look at the guest")
        return self._guests.get(uuid)

    async def set_secret(self, uuid: UUID, usage: str, value: bytes) -> None:
        """Store a key until the hypervisor stops."""
        self._need("store the key of Ceph")
        self.secrets[uuid] = value

    async def start(self, xml: str) -> None:
        """Start a guest from its document; an error if it runs already."""
        self._need("start the guest")
        try:
            wanted = domain.parse(xml)
        except Invalid as error:
            self._refuse(error.sentence)
        if self.fail_start is not None:
            self._refuse(self.fail_start)
        for secret in map(UUID, _SECRET.findall(xml)):
            if secret not in self.secrets:
                self._refuse(f"Secret not found: no secret with matching uuid '{secret}'")
        for guest in self._guests.values():
            if guest.uuid == wanted.uuid:
                self._refuse(f"Requested operation is not valid: domain '{guest.name}' is already active")
            if guest.name == wanted.name:
                self._refuse(f"operation failed: domain '{guest.name}' already exists with uuid {guest.uuid}")
        self._guests[wanted.uuid] = Guest(
            uuid=wanted.uuid,
            name=wanted.name,
            state=GuestState.RUNNING,
            generation=domain.generation_of(xml),
            memory=wanted.memory,
            vcpus=wanted.vcpu,
        )
        self.started.append(xml)
        if kept_at(xml, Path("variables")) is not None:
            self._kept.add(wanted.uuid)
        self._notify(wanted.uuid)

    async def shutdown(self, uuid: UUID) -> None:
        """Press the guest's power button, and return at once; no effect if it is gone."""
        self._need("shut down the guest")
        if uuid in self._hangs:
            raise GuestSilent(f"Cannot shut down the guest: {self._hangs[uuid]}")
        if uuid in self._guests and uuid not in self.ignores_shutdown and uuid not in self._shutdowns:
            self._shutdowns[uuid] = asyncio.create_task(self._power_off(uuid), name=f"shutdown of {uuid}")

    async def destroy(self, uuid: UUID) -> None:
        """End the guest at once; no effect if it is gone."""
        self._need("stop the guest")
        self._remove(uuid)

    async def kept(self) -> set[UUID]:
        """Return the guests of which there is state."""
        return set(self._kept)

    async def forget(self, uuid: UUID) -> None:
        """Remove the state of a guest."""
        self._kept.discard(uuid)

    async def capabilities(self) -> Capabilities:
        """Return the scripted capabilities."""
        self._need("read the capabilities of libvirt")
        return self._capabilities

    async def _power_off(self, uuid: UUID) -> None:
        await self._clock.sleep(self.shutdown_seconds)
        del self._shutdowns[uuid]
        self._remove(uuid)

    def _remove(self, uuid: UUID) -> None:
        shutdown = self._shutdowns.pop(uuid, None)
        if shutdown is not None:
            shutdown.cancel()
        self._hangs.pop(uuid, None)
        if self._guests.pop(uuid, None) is not None:
            self._notify(uuid)

    def _refuse(self, reason: str) -> NoReturn:
        raise HypervisorError(f"Cannot start the guest: libvirt reports: {reason.rstrip('.')}.")

    def _need(self, what: str) -> None:
        if not self.connected:
            raise HypervisorUnavailable(f"Cannot {what}: there is no connection to libvirtd.")

    def _notify(self, uuid: UUID | None) -> None:
        if self._running and self._loop is not None:
            for listener in self._listeners:
                self._loop.call_soon(listener, uuid)
