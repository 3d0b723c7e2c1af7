"""Service: one server of the sandbox, how it is started and how one sees that it is ready."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Service:
    """A server that the supervisor runs as its direct child."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], Awaitable[bool]]
    """Asked again and again until it says True."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to a minimal environment."""
    prepare: Callable[[], None] | None = None
    """Writes its files; runs in a thread, and again before each start."""
    sockets: tuple[int, ...] = ()
    """Descriptors that it inherits."""
    stop_timeout: float = 10.0
    """Seconds from SIGTERM to SIGKILL."""
