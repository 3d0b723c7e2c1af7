"""Where a mapping keeps what it must find again: one directory per volume, which is also the volume's lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pvcd import Locked
from pvcd_plugins.ceph.cluster import check_name


class Places:
    """The directories of all volumes, as <directory>/<pool>/<volume>."""

    def __init__(self, directory: Path) -> None:
        self._directory = Path(os.path.abspath(directory))

    def at(self, pool: str, volume: str) -> Path:
        """The directory of a volume, whether or not it is there."""
        return self._directory / check_name("pool", pool) / check_name("volume", volume)

    def all(self) -> list[tuple[str, str]]:
        """The pool and volume of every directory."""
        return sorted((place.parent.name, place.name) for place in self._directory.glob("*/*"))

    @contextlib.contextmanager
    def hold(self, pool: str, volume: str) -> Iterator[Path]:
        """The directory of a volume, made if it must be, for one at a time; removed in the end if it is empty."""
        place = self.at(pool, volume)
        descriptor = _lock(place)
        if descriptor is None:
            raise Locked(f"The volume {pool}/{volume} is being mapped or unmapped just now.")
        try:
            yield place
        finally:
            with contextlib.suppress(OSError):  # it is not empty
                place.rmdir()
                place.parent.rmdir()
            os.close(descriptor)


def _lock(place: Path) -> int | None:
    """A directory, locked; None when somebody else holds it. Whoever held it before may have removed it."""
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
