"""The directories with the state of mappings: one per volume, which is also the lock of the volume."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pvcd import Locked
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
        descriptor = _take(place)
        if descriptor is None:
            raise Locked(f"Cannot lock volume '{pool}/{volume}': it is being mapped or unmapped. Try again later.")
        try:
            yield place
        finally:
            with contextlib.suppress(OSError):  # the directory is not empty
                place.rmdir()
                place.parent.rmdir()
            os.close(descriptor)


def _take(place: Path) -> int | None:
    """Create and lock a directory, which its last holder may remove meanwhile; None if it is locked."""
    while True:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(place)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)
