"""Short links to directories of Unix sockets, whose addresses have at most 107 bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

_MAX_BYTES = 107


def directory(server: Path, longest: str) -> Path:
    """Return the path of SERVER/run for sockets: a short link if the address of the longest name does not fit."""
    true = Path(os.path.abspath(server / "run"))
    return true if len(os.fsencode(true / longest)) <= _MAX_BYTES else _link(server)


def prepare(server: Path, longest: str) -> None:
    """Create SERVER/run, and the short link if it is needed."""
    (server / "run").mkdir(parents=True, exist_ok=True)
    if directory(server, longest) == _link(server):
        with contextlib.suppress(FileExistsError):
            _link(server).symlink_to(os.path.abspath(server / "run"))


def release(server: Path) -> None:
    """Remove the short link, the only file outside of the sandbox's directory."""
    _link(server).unlink(missing_ok=True)


def _link(server: Path) -> Path:
    return Path("/run", f"pvcd-{hashlib.sha256(os.fsencode(os.path.abspath(server))).hexdigest()[:12]}")
