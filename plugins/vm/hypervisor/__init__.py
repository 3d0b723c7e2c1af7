"""The interface to this node's hypervisor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from pvcd import Failed

Listener = Callable[[UUID | None], None]
"""Called in the event loop with the UUID of a guest that changed, or None when any may have."""


class HypervisorError(Failed):
    """The hypervisor refused or failed; the sentence has its reason."""

    code = "hypervisor-failed"


class HypervisorUnavailable(Failed):
    """The hypervisor cannot be reached or does not answer: the request may still take effect."""

    code = "libvirt-unavailable"


class GuestSilent(HypervisorError):
    """A guest's QEMU does not answer: the request may still take effect."""

    code = "guest-silent"


class GuestState(StrEnum):
    """The state of a guest."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting-down"
    CRASHED = "crashed"
    OFF = "off"
    """Defined in the hypervisor, by others, but not running."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest as the hypervisor sees it."""

    uuid: UUID
    name: str
    state: GuestState
    generation: int | None
    """The generation in the document that it was started with."""
    memory: int
    """Its maximum, in MiB."""
    vcpus: int
    problem: str | None = None
    """A sentence, when it cannot be read or its QEMU does not answer."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The kinds of guests of the node's own architecture."""

    domain_types: tuple[str, ...]
    emulators: tuple[str, ...]
    arch: str
    machines: tuple[str, ...]


class Hypervisor(Protocol):
    """Transient guests: the hypervisor forgets each when it ends. Those marked with a generation are ours.

    Every method ends within a deadline. It raises `HypervisorUnavailable` when there is no answer, `GuestSilent` when
    the guest's QEMU gives none, and `HypervisorError` when the request was refused or failed. A guest that hangs or
    cannot be read delays and hides no other: it is listed with its problem, and can be destroyed.
    """

    @property
    def connected(self) -> bool:
        """True while there is a connection."""

    async def open(self) -> None:
        """Begin to hold a connection; return after the first attempt, even if it failed."""

    async def close(self) -> None:
        """Close the connection; guests run on."""

    def listen(self, callback: Listener) -> None:
        """Call `callback` after each change of a guest, and with None when the connection is made or lost."""

    async def domains(self) -> dict[UUID, Guest]:
        """Return all guests."""

    async def look(self, uuid: UUID) -> Guest | None:
        """Return one guest, or None if the hypervisor does not know it."""

    async def set_secret(self, uuid: UUID, usage: str, value: bytes) -> None:
        """Store a Ceph key, which documents name by this UUID, or replace it.

        It cannot be read back, and is lost when the hypervisor ends. `usage` must be unique among all secrets.
        """

    async def start(self, xml: str) -> None:
        """Start a guest from its document; an error if it runs already.

        Its UEFI variables and the state of its TPM are those of its last run on this node.
        """

    async def shutdown(self, uuid: UUID) -> None:
        """Press the guest's power button, and return at once; no effect if it is gone."""

    async def destroy(self, uuid: UUID) -> None:
        """End the guest at once, and return when it is gone; no effect if it is gone already."""

    async def kept(self) -> set[UUID]:
        """Return the guests that this node keeps something of: UEFI variables, TPM state, or a console log."""

    async def forget(self, uuid: UUID) -> None:
        """Remove the state of a guest that is gone for ever; no effect if there is none."""

    async def capabilities(self) -> Capabilities:
        """Return the kinds of guests that can run here."""
