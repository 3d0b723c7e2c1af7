"""A metadata API that answers nobody, for simulations. What is public beyond the protocol is for who scripts it."""

from __future__ import annotations

from pvcd import Clock


class FakeMetadata:
    """An address that is had in name only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._end = 0.0

    @property
    def held(self) -> bool:
        """Whether the address is there now."""
        return self._clock.monotonic() < self._end

    async def hold(self, seconds: float) -> None:
        """Have the address for so long."""
        self._end = self._clock.monotonic() + seconds

    async def close(self) -> None:
        """Give the address up."""
        self._end = 0.0
