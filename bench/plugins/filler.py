"""Records that stand for the networks, leases and rules of a cluster."""

from __future__ import annotations

from pvcd import PLUGIN_API_1, Record, hookimpl

REQUIRES_PLUGIN_API = PLUGIN_API_1


class Filler(Record, path="/filler/{number}"):
    """A meaningless record."""

    number: int
    text: str


@hookimpl
def register_records() -> list[type[Record]]:
    """Declare the record."""
    return [Filler]
