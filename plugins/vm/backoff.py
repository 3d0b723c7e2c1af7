"""StartBackoff: a guest that keeps ending soon after its start is started again only after growing pauses."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

GOOD_RUN = 60.0
LONGEST_PAUSE = 60.0
DOUBLINGS = 10


@dataclass
class _Starts:
    generation: int
    count: int
    last: float

    @property
    def pause(self) -> float:
        """Seconds from the last start to the next."""
        return min(2.0 ** min(self.count - 1, DOUBLINGS), LONGEST_PAUSE) if self.count > 1 else 0.0

    def counts(self, generation: int, now: float) -> bool:
        """Whether it is of the present request, and there was no good run since, not even after the pause."""
        return self.generation == generation and now - self.last <= self.pause + GOOD_RUN


class StartBackoff:
    """Counts the starts of each VM for its present request; a new request, or a good run, begins anew."""

    def __init__(self) -> None:
        self._starts: dict[UUID, _Starts] = {}

    def pause(self, uuid: UUID, generation: int, now: float) -> float:
        """Seconds to wait before a VM may be started: none for the first two starts, then 2, 4, 8 ..."""
        starts = self._starts.get(uuid)
        if starts is None or not starts.counts(generation, now):
            return 0.0
        return max(0.0, starts.last + starts.pause - now)

    def started(self, uuid: UUID, generation: int, now: float) -> None:
        """Remember a start."""
        starts = self._starts.get(uuid)
        if starts is None or not starts.counts(generation, now):
            self._starts[uuid] = _Starts(generation, 1, now)
        else:
            starts.count, starts.last = starts.count + 1, now

    def forget(self, uuid: UUID) -> None:
        """The VM is gone."""
        self._starts.pop(uuid, None)
