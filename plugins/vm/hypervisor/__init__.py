"""The door to the hypervisor of this node: what a node may ask of it, whatever stands behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from pvcd import Failed

Listener = Callable[[UUID | None], None]
"""Called in the event loop with the guest that changed, or None when everything may have changed."""


class HypervisorError(Failed):
    """The hypervisor did not do what it was asked; the sentence says why."""

    code = "hypervisor-failed"


class HypervisorUnavailable(Failed):
    """The hypervisor cannot be reached or does not answer: what was asked of it may still happen."""

    code = "libvirt-unavailable"


class GuestState(StrEnum):
    """What a guest is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting-down"
    CRASHED = "crashed"
    OFF = "off"
    """Known to the hypervisor, for somebody defined it there, but not running."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest as the hypervisor sees it."""

    uuid: UUID
    name: str
    state: GuestState
    generation: int | None
    """The mark of the document that it was started with."""
    memory: int
    """The most that it may use, in MiB."""
    vcpus: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What guests of the node's own architecture can be."""

    domain_types: tuple[str, ...]
    emulators: tuple[str, ...]
    arch: str
    machines: tuple[str, ...]


class Hypervisor(Protocol):
    """Guests that run while they run: none is remembered, and only what is marked with a generation is ours.

    Every verb ends within a deadline. It raises `HypervisorUnavailable` when nobody answers and `HypervisorError` when
    the answer is no.
    """

    @property
    def connected(self) -> bool:
        """Whether the hypervisor can be asked now."""

    async def open(self) -> None:
        """Begin to hold a connection; returns also when there is none yet."""

    async def close(self) -> None:
        """Let go of it; guests run on."""

    def listen(self, callback: Listener) -> None:
        """Have `callback` called after each change of a guest, and with None when a connection is made or lost."""

    async def domains(self) -> dict[UUID, Guest]:
        """All guests."""

    async def look(self, uuid: UUID) -> Guest | None:
        """One guest, or None when the hypervisor does not know it."""

    async def set_secret(self, uuid: UUID, usage: str, value: bytes) -> None:
        """Let documents name a Ceph key by this UUID, and nobody read it back; it is forgotten with the hypervisor.

        `usage` says what it is for, in words that no other secret has. Set again, it is replaced.
        """

    async def start(self, xml: str) -> None:
        """Run a guest from its document; refused when it runs already."""

    async def shutdown(self, uuid: UUID) -> None:
        """Press its power button, and return at once; fine when it is gone."""

    async def destroy(self, uuid: UUID) -> None:
        """Pull its plug, and return when it is gone; fine when it was."""

    async def capabilities(self) -> Capabilities:
        """What guests can be here."""
