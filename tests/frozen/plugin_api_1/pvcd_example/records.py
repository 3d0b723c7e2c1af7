"""What the cluster remembers of frozen nodes."""

from __future__ import annotations

from pvcd import Name, Record


class Freeze(Record, path="/freezes/{node}"):
    """A node that is frozen."""

    node: Name
    reason: str


class FreezeReport(Record, path="/freezes/{node}/report"):
    """What the node says of it; only the node writes it."""

    node: Name
    knows: str
