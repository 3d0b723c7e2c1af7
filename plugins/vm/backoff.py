"""StartBackoff: growing pauses before the starts of a guest that keeps ending soon after its start."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

GOOD_RUN_SECONDS = 60.0
MAX_PAUSE_SECONDS = 60.0
MAX_DOUBLINGS = 10


@dataclass
class _Starts:
    generation: int
    count: int
    last: float

    @property
    def pause(self) -> float:
        """The seconds from the last start to the next."""
        return min(2.0 ** min(self.count - 1, MAX_DOUBLINGS), MAX_PAUSE_SECONDS) if self.count > 1 else 0.0

    def counts(self, generation: int, now: float) -> bool:
        """Return whether these starts are of this request, with no good run since the end of the pause."""
        return self.generation == generation and now - self.last <= self.pause + GOOD_RUN_SECONDS


class StartBackoff:
    """The starts of each VM for its current request; a new request or a good run resets the count."""

    def __init__(self) -> None:
        self._starts: dict[UUID, _Starts] = {}

    def pause(self, uuid: UUID, generation: int, now: float) -> float:
        """Return the seconds before a VM may be started: 0 for the first two starts, then 2, 4, 8 ..."""
        starts = self._starts.get(uuid)
        if starts is None or not starts.counts(generation, now):
            return 0.0
        return max(0.0, starts.last + starts.pause - now)

    def started(self, uuid: UUID, generation: int, now: float) -> None:
        """Count a start."""
        starts = self._starts.get(uuid)
        if starts is None or not starts.counts(generation, now):
            self._starts[uuid] = _Starts(generation, 1, now)
        else:
            starts.count, starts.last = starts.count + 1, now

    def forget(self, uuid: UUID) -> None:
        """Forget the starts of a VM that is gone."""
        self._starts.pop(uuid, None)
