"""The door to the text that a node shows: a protocol, a real implementation and a fake."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from pvcd import Component, ComponentKey, Context, Failed, Role

from .settings import NotesSettings


class Board(Protocol):
    """Shows a text, or none."""

    async def show(self, text: str | None) -> None:
        """Show another text, or none. Raises `Failed`."""

    async def shown(self) -> str | None:
        """Return the text that is shown."""


class FileBoard:
    """Shows the text in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def show(self, text: str | None) -> None:
        """Write the file in a thread, as disks may be slow, and atomically, as others read it."""
        try:
            await asyncio.to_thread(self._write, text)
        except OSError as error:
            raise Failed(f"Cannot write {str(self._file)!r}: {error.strerror}.") from error

    async def shown(self) -> str | None:
        """Return the text in the file."""
        try:
            return (await asyncio.to_thread(self._file.read_text)).removesuffix("\n")
        except OSError:
            return None

    def _write(self, text: str | None) -> None:
        if text is None:
            self._file.unlink(missing_ok=True)
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        new.write_text(f"{text}\n")
        os.replace(new, self._file)


class FakeBoard:
    """Shows the text to tests only."""

    def __init__(self) -> None:
        self._text: str | None = None

    async def show(self, text: str | None) -> None:
        """Keep the text."""
        self._text = text

    async def shown(self) -> str | None:
        """Return the text."""
        return self._text


@contextlib.asynccontextmanager
async def open_board(context: Context) -> AsyncIterator[Board]:
    """Open the file that the settings name."""
    yield FileBoard(context.settings.of(NotesSettings).file)


@contextlib.asynccontextmanager
async def open_fake(context: Context) -> AsyncIterator[Board]:
    """Open the fake of a simulated cluster."""
    yield FakeBoard()


BOARD: ComponentKey[Board] = ComponentKey("notes-board")
COMPONENT = Component(BOARD, open_board, roles=(Role.NODE,), fake=open_fake)
