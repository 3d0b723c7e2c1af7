"""A hypervisor in memory, for tests and simulations: guests do as they are told, and fail as they are told."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import NoReturn
from uuid import UUID

from pvcd import Clock, Invalid
from pvcd_plugins.vm import domain
from pvcd_plugins.vm.hypervisor import (
    Capabilities,
    Guest,
    GuestState,
    HypervisorError,
    HypervisorUnavailable,
    Listener,
)

_SECRET = re.compile(r"""<secret [^>]*uuid=["']([^"']+)""")
CAPABILITIES = Capabilities(("qemu", "kvm"), ("/usr/bin/qemu-system-x86_64",), "x86_64", ("pc", "q35"))


class FakeHypervisor:
    """Guests that exist in name only. What is public beyond the protocol is for the one who scripts them."""

    def __init__(
        self,
        clock: Clock,
        *,
        shutdown_seconds: float = 1.0,
        capabilities: Capabilities = CAPABILITIES,
    ) -> None:
        self.ignores_shutdown: set[UUID] = set()
        self.shutdown_seconds = shutdown_seconds
        """How long a guest takes to power off when it is asked to."""
        self.fail_start: str | None = None
        """Why no guest can be started."""
        self.started: list[str] = []
        """The document of each start that succeeded."""
        self.secrets: dict[UUID, bytes] = {}
        """The keys that documents may name."""
        self._clock = clock
        self._capabilities = capabilities
        self._guests: dict[UUID, Guest] = {}
        self._listeners: list[Listener] = []
        self._running = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shutdowns: dict[UUID, asyncio.Task[None]] = {}

    def kill(self, uuid: UUID) -> None:
        """Let a guest die, as if its process had been killed."""
        self._remove(uuid)

    def pause(self, uuid: UUID) -> None:
        """Let a guest stand still, as if somebody had suspended it."""
        self._guests[uuid] = replace(self._guests[uuid], state=GuestState.PAUSED)
        self._tell(uuid)

    def stop(self) -> None:
        """Let the hypervisor go away; its guests run on."""
        self._tell(None)
        self._running = False
        self.secrets.clear()

    def start_again(self) -> None:
        """Let the hypervisor come back."""
        self._running = True
        self._tell(None)

    @property
    def connected(self) -> bool:
        """Whether it can be asked now."""
        return self._running and self._loop is not None

    async def open(self) -> None:
        """Begin to hold a connection."""
        self._loop = asyncio.get_running_loop()
        self._tell(None)

    async def close(self) -> None:
        """Let go of it; guests stay as they are."""
        self._loop = None
        shutdowns = list(self._shutdowns.values())
        self._shutdowns.clear()
        for shutdown in shutdowns:
            shutdown.cancel()
        await asyncio.gather(*shutdowns, return_exceptions=True)

    def listen(self, callback: Listener) -> None:
        """Have `callback` called after each change of a guest, and with None when the hypervisor comes or goes."""
        self._listeners.append(callback)

    async def domains(self) -> dict[UUID, Guest]:
        """All guests."""
        self._need("list the guests")
        return dict(self._guests)

    async def look(self, uuid: UUID) -> Guest | None:
        """One guest, or None."""
        self._need("look at the guest")
        return self._guests.get(uuid)

    async def set_secret(self, uuid: UUID, usage: str, value: bytes) -> None:
        """Let documents name a key by this UUID until the hypervisor goes away."""
        self._need("keep the key of Ceph")
        self.secrets[uuid] = value

    async def start(self, xml: str) -> None:
        """Run a guest from its document; refused when it runs already."""
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
        self._tell(wanted.uuid)

    async def shutdown(self, uuid: UUID) -> None:
        """Press its power button, and return at once; fine when it is gone."""
        self._need("shut down the guest")
        if uuid in self._guests and uuid not in self.ignores_shutdown and uuid not in self._shutdowns:
            self._shutdowns[uuid] = asyncio.create_task(self._power_off(uuid), name=f"shutdown of {uuid}")

    async def destroy(self, uuid: UUID) -> None:
        """Pull its plug; fine when it is gone."""
        self._need("stop the guest")
        self._remove(uuid)

    async def capabilities(self) -> Capabilities:
        """What guests can be here."""
        self._need("tell its capabilities")
        return self._capabilities

    async def _power_off(self, uuid: UUID) -> None:
        await self._clock.sleep(self.shutdown_seconds)
        del self._shutdowns[uuid]
        self._remove(uuid)

    def _remove(self, uuid: UUID) -> None:
        shutdown = self._shutdowns.pop(uuid, None)
        if shutdown is not None:
            shutdown.cancel()
        if self._guests.pop(uuid, None) is not None:
            self._tell(uuid)

    def _refuse(self, reason: str) -> NoReturn:
        raise HypervisorError(f"libvirt could not start the guest: {reason.rstrip('.')}.")

    def _need(self, what: str) -> None:
        if not self.connected:
            raise HypervisorUnavailable(f"libvirt could not {what}: there is no connection to libvirtd.")

    def _tell(self, uuid: UUID | None) -> None:
        if self._running and self._loop is not None:
            for listener in self._listeners:
                self._loop.call_soon(listener, uuid)
