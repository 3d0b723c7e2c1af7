"""Declarations about nodes: facts that the keepalive publishes, and selectors that choose a node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pvcd.declare.context import Context


@dataclass(frozen=True)
class NodeFact:
    """A value that a node publishes. A slow one never delays the keepalive: it keeps its last value."""

    name: str
    read: Callable[[Context], Awaitable[Any]]
    """Returns plain JSON values."""


@dataclass(frozen=True)
class NodeSelector:
    """A way to choose among the nodes that a VM fits on: the least `figure` wins."""

    name: str
    doc: str
    figure: Callable[[Context, str], float]
    """Takes the name of a node; rests on memory only, and must return at once."""
