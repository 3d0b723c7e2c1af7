"""The directories with the state of mappings: one per volume, which is also the lock of the volume."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pvcd import Locked, programs
from pvcd_plugins.ceph.cluster import check_name


class Places:
    """The directories of all volumes, <directory>/<pool>/<volume>."""

    def __init__(self, directory: Path) -> None:
        self._directory = Path(os.path.abspath(directory))

    def at(self, pool: str, volume: str) -> Path:
        """Return the path of the directory of a volume, which may not exist."""
        return self._directory / check_name("pool", pool) / check_name("volume", volume)

    def all(self) -> list[tuple[str, str]]:
        """Return the pool and volume of every directory."""
        return sorted((place.parent.name, place.name) for place in self._directory.glob("*/*"))

    @contextlib.contextmanager
    def hold(self, pool: str, volume: str) -> Iterator[Path]:
        """Lock the directory of a volume, created if needed; remove it in the end if it is empty."""
        place = self.at(pool, volume)
        descriptor = programs.take(place)
        if descriptor is None:
            raise Locked(f"Cannot lock volume '{pool}/{volume}': it is being mapped or unmapped. Try again later.")
        try:
            yield place
        finally:
            with contextlib.suppress(OSError):  # the directory is not empty
                place.rmdir()
                place.parent.rmdir()
            os.close(descriptor)
