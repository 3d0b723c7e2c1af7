"""Stands for what later plugins will remember: networks with their leases and rules."""

from __future__ import annotations

from pvcd import PLUGIN_API_1, Record, hookimpl

REQUIRES_PLUGIN_API = PLUGIN_API_1


class Filler(Record, path="/filler/{number}"):
    """One record of no meaning."""

    number: int
    text: str


@hookimpl
def register_records() -> list[type[Record]]:
    """The one record."""
    return [Filler]
