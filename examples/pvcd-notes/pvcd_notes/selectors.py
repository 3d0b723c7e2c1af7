"""A selector: of the nodes that can take a VM, the one with the lowest figure is chosen."""

from __future__ import annotations

from pvcd import Context, NodeSelector

from .records import Note


def figure(context: Context, node: str) -> float:
    """Return 1 for a node with a note, else 0."""
    return 1.0 if context.store.get(Note, node) else 0.0


WITHOUT_NOTE = NodeSelector("notes", "a node without a note, if there is one", figure)
