"""Service: one server of the sandbox, how to start it and how to tell that it is ready."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Service:
    """A server that the supervisor runs as its direct child."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], Awaitable[bool]]
    """Called repeatedly until it returns True."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables added to a minimal environment."""
    prepare: Callable[[], None] | None = None
    """Writes the server's files; called in a thread before each start."""
    sockets: tuple[int, ...] = ()
    """File descriptors that the server inherits."""
    stop_seconds: float = 10.0
    """Time from SIGTERM to SIGKILL."""
    lost_seconds: float | None = None
    """Restart it when it answers for so long that it is not ready any more; None: wait for it to end by itself."""
