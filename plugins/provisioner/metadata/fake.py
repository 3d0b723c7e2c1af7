"""A metadata API that no guest reaches, for simulations. Public names beyond the protocol are for tests."""

from __future__ import annotations

from pvcd import Clock


class FakeMetadata:
    """An address that is only remembered."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._end = 0.0

    @property
    def held(self) -> bool:
        """Return whether the address is held now."""
        return self._clock.monotonic() < self._end

    async def hold(self, seconds: float) -> None:
        """Hold the address for some seconds."""
        self._end = self._clock.monotonic() + seconds

    async def close(self) -> None:
        """Give up the address."""
        self._end = 0.0
