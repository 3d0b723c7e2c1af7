"""Leases that are remembered in a file, for tests of the door to DHCP."""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from pathlib import Path

from pvcd.errors import StoreUnavailable
from pvcd_plugins.network.dhcp import Address, Leased


class KeptLeases:
    """Leases that all processes with the same file share; access fails while the file `.away` is beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.away = path.with_suffix(".away")
        self.writes = path.with_suffix(".writes")

    def all(self) -> dict[tuple[int, Address], Leased]:
        """Return the stored leases."""
        leases: dict[tuple[int, Address], Leased] = pickle.loads(self.path.read_bytes()) if self.path.exists() else {}
        return leases

    async def known(self, vni: int) -> Sequence[Leased]:
        if self.away.exists():
            raise StoreUnavailable("ZooKeeper is away.")
        return [each for (number, _), each in self.all().items() if number == vni and each.expires > time.time()]

    async def taken(self, vni: int, lease: Leased) -> None:
        self._write(self.all() | {(vni, lease.address): lease})

    async def ended(self, vni: int, address: Address) -> None:
        self._write({key: each for key, each in self.all().items() if key != (vni, address)})

    def _write(self, leases: dict[tuple[int, Address], Leased]) -> None:
        if self.away.exists():
            raise StoreUnavailable("ZooKeeper is away.")
        draft = self.path.with_suffix(".draft")
        draft.write_bytes(pickle.dumps(leases))
        draft.replace(self.path)
        with self.writes.open("a") as log:
            log.write("x")
