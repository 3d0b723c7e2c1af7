"""State that all tests of a module share, and none may change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


class Kept:
    """Something that is made when the first test needs it, and anew when it is not as it was made."""

    def __init__(self, make: Callable[[], object], remove: Callable[[], object], look: Callable[[], Any]) -> None:
        self._make, self._remove, self._look = make, remove, look
        self._made: Any = None

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Have it as it was made, and assert that it still is after the block."""
        if self._made is None or self._look() != self._made:
            self._remove()
            self._make()
            self._made = self._look()
        yield
        assert self._look() == self._made

    def remove(self) -> None:
        """Remove it, if it was made."""
        if self._made is not None:
            self._remove()
            self._made = None
