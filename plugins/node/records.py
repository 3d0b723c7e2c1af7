"""The records of nodes."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from pvcd import Name, Record


class DaemonState(StrEnum):
    """The state of a node's agent; `dead` is never written, but concluded from its presence being gone."""

    INIT = "init"
    RUN = "run"
    SHUTDOWN = "shutdown"
    STOP = "stop"
    DEAD = "dead"


class CoordinatorState(StrEnum):
    """A node's part in leading the cluster."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    CLIENT = "client"


class DomainState(StrEnum):
    """A node's readiness for VMs; `flush` and `unflush` are on the way to `flushed` and `ready`."""

    FLUSH = "flush"
    FLUSHED = "flushed"
    UNFLUSH = "unflush"
    READY = "ready"


class Node(Record, path="/nodes/{name}"):
    """A node as it should be; `generation` counts the requests for a domain state."""

    name: Name
    coordinator: bool = False
    domain_state: DomainState = DomainState.READY
    generation: int = 0


class NodeDeath(Record, path="/nodes/{name}/death"):
    """The node is dead, and listeners were notified. The primary writes it, and removes it when the node is back."""

    name: Name
    since: float


class NodeReport(Record, path="/nodes/{name}/report"):
    """The report of a node at each keepalive; only the node writes it."""

    name: Name
    daemon_state: DaemonState = DaemonState.INIT
    settled_generation: int | None = None
    """The last generation that is done."""
    remaining: tuple[str, ...] = ()
    """The names of what keeps `generation` from being done."""
    updated: float = 0.0
    facts: dict[str, Any] = Field(default_factory=dict)
