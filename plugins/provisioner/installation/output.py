"""The output of a script as lines, limited in length and number."""

from __future__ import annotations

import re

MAX_LINE_CHARACTERS = 8000
"""More than a secret and the log's own limit: a secret is whole when it is masked, before the log cuts the line."""
MAX_LINES = 20_000
MAX_BYTES = 4 * 1024 * 1024
"""Of one script; further lines are only counted."""

_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")  # colors and the like


class Lines:
    """Split chunks of output into lines. Of a line that is overwritten, like a progress bar, the last state is kept."""

    def __init__(self) -> None:
        self._line = b""
        self._lines = self._bytes = 0
        self._dropped = 0

    def feed(self, chunk: bytes) -> list[str]:
        """Return the lines that are complete now."""
        if self._is_full():
            self._dropped, self._line = self._dropped + chunk.count(b"\n"), b""
            return []
        first, *rest = chunk.split(b"\n")
        self._begin(first)
        kept = []
        for part in rest:
            kept += self._end()
            self._begin(part)
        return kept

    def finish(self) -> list[str]:
        """Return the rest, and a sentence if lines were dropped."""
        kept = self._end() if self._line else []
        if self._dropped:
            kept.append(f"{self._dropped} more lines were dropped.")
        return kept

    def _is_full(self) -> bool:
        return self._lines >= MAX_LINES or self._bytes >= MAX_BYTES

    def _begin(self, part: bytes) -> None:
        self._line = (self._line + part[: 2 * MAX_LINE_CHARACTERS])[: 2 * MAX_LINE_CHARACTERS]

    def _end(self) -> list[str]:
        line, self._line = self._line, b""
        if self._is_full():
            self._dropped += 1
            return []
        self._lines += 1
        self._bytes += len(line)
        text = _ESCAPES.sub(b"", line.rstrip(b"\r").rpartition(b"\r")[2]).decode(errors="replace")
        text = text[:MAX_LINE_CHARACTERS]
        return [text if text.isprintable() else "".join(map(_shown, text))]


def _shown(letter: str) -> str:
    return letter if letter.isprintable() or letter == "\t" else "\N{REPLACEMENT CHARACTER}"
