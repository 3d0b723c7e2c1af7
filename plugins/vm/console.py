"""The console log of a guest, whose file may be rotated by virtlogd while it is read."""

from __future__ import annotations

import os
from pathlib import Path

MAX_BYTES = 256 * 1024


def read_console(path: Path, lines: int, limit: int = MAX_BYTES) -> list[str]:
    """Return the last lines of a log and of the rotated file before it (PATH.0), out of their last `limit` bytes.

    No lines where there is no log. Reads files: call it in a thread.
    """
    newer, status = _tail(path, limit)
    older, status_before = _tail(Path(f"{path}.0"), limit - len(newer))
    # If the log was rotated between the two reads, the second one has found the same file again.
    if status and status_before and os.path.samestat(status, status_before):
        older = b""
    data = older + newer
    found = data.decode(errors="replace").replace("\r", "").removesuffix("\n").split("\n")
    if len(data) >= limit and len(found) > 1:
        del found[0]  # its beginning is cut off
    return found[-lines:] if data and lines > 0 else []


def _tail(path: Path, length: int) -> tuple[bytes, os.stat_result | None]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            file.seek(max(0, status.st_size - length))
            return file.read(length), status
    except FileNotFoundError:
        return b"", None
