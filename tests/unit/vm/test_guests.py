"""Requests to libvirtd about guests, as far as they are decided here."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import uuid4

from pvcd_plugins.vm.hypervisor.connection import Link
from pvcd_plugins.vm.hypervisor.guests import destroy


class Domain:
    """A guest in one run."""

    def __init__(self, run: int, ended: list[int]) -> None:
        self._run, self._ended = run, ended

    def ID(self) -> int:
        return self._run

    def isActive(self) -> int:
        return 1

    def destroy(self) -> None:
        self._ended.append(self._run)


def test_a_guest_that_was_started_meanwhile_is_not_ended() -> None:
    ended: list[int] = []
    runs = iter([7, 7, 8])
    connection = SimpleNamespace(lookupByUUID=lambda _: Domain(next(runs), ended))
    destroy(Link(connection), uuid4())
    assert ended == [7, 7]
