"""The sandbox's secrets: made once, and kept in files that only their owner can read."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

_BYTES = 24


def password(file: Path) -> str:
    """Return the password in a file; if there is none, make a random one first."""
    return once(file, lambda: secrets.token_hex(_BYTES))


def once(file: Path, make: Callable[[], str]) -> str:
    """Return the content of a file; if it does not exist, make it first, readable by its owner only."""
    if not file.exists():
        new = file.with_suffix(".new")
        write(new, make())
        new.replace(file)
    return file.read_text()


def write(file: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(text)
