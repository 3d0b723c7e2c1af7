"""The console log of a guest: the last lines of a file that is cut and begun anew while it is read."""

from __future__ import annotations

import os
from pathlib import Path

LIMIT = 256 * 1024


def read_console(path: Path, lines: int, limit: int = LIMIT) -> list[str]:
    """The last lines of a log and of the file before it (PATH.0), from `limit` bytes; none where there is no log.

    Reads files: not for the event loop.
    """
    newer, status = _tail(path, limit)
    older, status_before = _tail(Path(f"{path}.0"), limit - len(newer))
    # Renamed between the two looks, the first file is found again: nothing is to be said twice.
    if status and status_before and os.path.samestat(status, status_before):
        older = b""
    data = older + newer
    found = data.decode(errors="replace").replace("\r", "").removesuffix("\n").split("\n")
    if len(data) >= limit and len(found) > 1:
        del found[0]  # only the end of a line
    return found[-lines:] if data and lines > 0 else []


def _tail(path: Path, length: int) -> tuple[bytes, os.stat_result | None]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            file.seek(max(0, status.st_size - length))
            return file.read(length), status
    except FileNotFoundError:
        return b"", None
