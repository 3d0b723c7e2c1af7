"""A way to choose a node for a VM: of those on which it fits, the one with the least figure."""

from __future__ import annotations

from pvcd import Context, NodeSelector

from .records import Note


def figure(context: Context, node: str) -> float:
    """1 for a node with a note, else 0."""
    return 1.0 if context.store.get(Note, node) else 0.0


WITHOUT_NOTE = NodeSelector("notes", "a node without a note, if there is one", figure)
