"""What plugins may declare about nodes: facts that the keepalive publishes, and selectors that choose a node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pvcd.declare.context import Context


@dataclass(frozen=True)
class NodeFact:
    """Something a node says of itself. Read beside the keepalive, never in its way: a slow one keeps its last value."""

    name: str
    read: Callable[[Context], Awaitable[Any]]
    """Returns plain JSON values."""


@dataclass(frozen=True)
class NodeSelector:
    """A way to choose among the nodes on which a VM fits: the least `figure` wins."""

    name: str
    doc: str
    figure: Callable[[Context, str], float]
    """From the name of a node, by what is in memory; it must return at once."""
