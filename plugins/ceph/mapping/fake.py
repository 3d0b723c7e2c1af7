"""A mapping in memory, for tests and simulations: its devices are sparse files that remember what is written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pvcd import NotFound
from pvcd_plugins.ceph.cluster import InUse, check_name
from pvcd_plugins.ceph.mapping import IsMapped, Mapped


class FakeMapping:
    """Volumes as files below a directory. Public members beyond the protocol are for scripting it."""

    def __init__(self, directory: Path, volumes: Iterable[tuple[str, str]] = (), *, size: int = 1024 * 1024) -> None:
        self.volumes = set(volumes)
        """The existing volumes."""
        self.open_elsewhere: set[tuple[str, str]] = set()
        """The volumes that another client has open."""
        self.held: set[tuple[str, str]] = set()
        """The volumes whose device is mounted."""
        self._directory = directory
        self._size = size
        self._mapped: dict[tuple[str, str], Path | None] = {}

    def kill(self, pool: str, volume: str) -> None:
        """Let the daemon of a mapping die."""
        self._mapped[pool, volume] = None

    async def map(self, pool: str, volume: str) -> Path:
        """Map a volume and return its file."""
        key = check_name("pool", pool), check_name("volume", volume)
        device = self._mapped.get(key)
        if device is not None:
            raise IsMapped(pool, volume, device)
        if key not in self.volumes:
            raise NotFound("volume", f"{pool}/{volume}")
        if key in self.open_elsewhere:
            raise InUse("volume", f"map volume '{pool}/{volume}'", "another client has it open")
        path = self._directory / pool / volume
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(self._size)
        self._mapped[key] = path
        return path

    async def unmap(self, pool: str, volume: str) -> None:
        """Remove the device; no error if the volume is not mapped."""
        key = check_name("pool", pool), check_name("volume", volume)
        device = self._mapped.get(key)
        if device is not None and key in self.held:
            raise InUse("volume", f"unmap volume '{pool}/{volume}'", f"its device {device} is mounted or held")
        self.held.discard(key)
        self._mapped.pop(key, None)

    async def mapped(self) -> list[Mapped]:
        """Return the mappings, by pool and volume."""
        return [Mapped(*key, device=device) for key, device in sorted(self._mapped.items())]

    async def clean(self) -> list[Mapped]:
        """Remove the mappings whose daemon died, and return them."""
        removed = [each for each in await self.mapped() if each.device is None]
        for each in removed:
            await self.unmap(each.pool, each.volume)
        return removed
