"""What the cluster remembers of frozen nodes."""

from __future__ import annotations

from pvcd import Name, Record


class Freeze(Record, path="/freezes/{node}"):
    """A frozen node; only the API writes it."""

    node: Name
    reason: str
    changes: int = 0
    """How often its part as coordinator was changed meanwhile."""


class FreezeReport(Record, path="/freezes/{node}/report"):
    """What the node knows; only the node writes it."""

    node: Name
    knows: str
