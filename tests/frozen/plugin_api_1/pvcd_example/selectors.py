"""A way to choose a node: the least figure wins."""

from __future__ import annotations

from pvcd import Context, NodeSelector

from .records import Freeze


def frozen(context: Context, node: str) -> float:
    """1 for a frozen node, else 0."""
    return 1.0 if context.store.get(Freeze, node) else 0.0


THAWED = NodeSelector("thawed", "a node that is not frozen, if there is one", frozen)
