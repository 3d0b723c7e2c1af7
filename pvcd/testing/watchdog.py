"""Find what blocks an event loop: a thread inspects the loop's thread when the loop has not moved for a while."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import Self

LOOK_SECONDS = 0.02
BLOCKED_LOOKS = 13
"""Looks in a row without a move of the loop; not seconds, as those pass on a busy machine too."""


class Watchdog:
    """Watches the running loop; `seen` names the functions of some code that blocked it."""

    def __init__(self, code: Path) -> None:
        self.seen: set[str] = set()
        self._code = code
        self._over = threading.Event()
        self._still = 0
        """The number of looks since the loop moved."""

    def __enter__(self) -> Self:
        self._beat = asyncio.ensure_future(self._move())
        self._thread = threading.Thread(target=self._watch, args=(threading.get_ident(),), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._beat.cancel()
        self._over.set()
        self._thread.join()

    async def _move(self) -> None:
        while True:
            self._still = 0
            await asyncio.sleep(LOOK_SECONDS)

    def _watch(self, thread: int) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._still += 1
            if self._still > BLOCKED_LOOKS:
                self._note(thread)

    def _note(self, thread: int) -> None:
        """Record the innermost function of the code in the loop's thread."""
        for frame in reversed(traceback.extract_stack(sys._current_frames()[thread])):
            if Path(frame.filename).is_relative_to(self._code):
                self.seen.add(f"{frame.name}() in {Path(frame.filename).name}")
                return
