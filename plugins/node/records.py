"""What the cluster remembers of a node."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from pvcd import Name, Record


class DaemonState(StrEnum):
    """How a node's agent is; `dead` is never written, but seen from its session being gone."""

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
    """Whether VMs may run on a node: `flush` and `unflush` are on the way to `flushed` and `ready`."""

    FLUSH = "flush"
    FLUSHED = "flushed"
    UNFLUSH = "unflush"
    READY = "ready"


class Node(Record, path="/nodes/{name}"):
    """A node as it should be. `generation` counts the requests for a domain state, `settled_generation` those done."""

    name: Name
    coordinator: bool = False
    domain_state: DomainState = DomainState.READY
    generation: int = 0


class NodeDeath(Record, path="/nodes/{name}/death"):
    """The node is dead, and that was told; the primary writes it, and removes it when the node lives again."""

    name: Name
    since: float


class NodeReport(Record, path="/nodes/{name}/report"):
    """What the node says of itself, at each keepalive; only the node writes it."""

    name: Name
    daemon_state: DaemonState = DaemonState.INIT
    settled_generation: int | None = None
    remaining: tuple[str, ...] = ()
    updated: float = 0.0
    facts: dict[str, Any] = Field(default_factory=dict)
