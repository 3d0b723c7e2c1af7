"""The door to what a node shows: a protocol, the real one, and a fake for tests and simulations."""

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
    """Shows one text, or none."""

    async def show(self, text: str | None) -> None:
        """Show a text in the place of what is shown. Raises `Failed`."""

    async def shown(self) -> str | None:
        """What is shown."""


class FileBoard:
    """A file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def show(self, text: str | None) -> None:
        """Write the file in a thread, since disks may be slow, and at one blow, since others read it."""
        try:
            await asyncio.to_thread(self._write, text)
        except OSError as error:
            raise Failed(f"{self._file} cannot be written: {error.strerror}.") from error

    async def shown(self) -> str | None:
        """What is in the file."""
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
    """A board that nobody sees."""

    def __init__(self) -> None:
        self._text: str | None = None

    async def show(self, text: str | None) -> None:
        """Keep a text."""
        self._text = text

    async def shown(self) -> str | None:
        """What was kept."""
        return self._text


@contextlib.asynccontextmanager
async def open_board(context: Context) -> AsyncIterator[Board]:
    """The file that the settings name."""
    yield FileBoard(context.settings.of(NotesSettings).file)


@contextlib.asynccontextmanager
async def open_fake(context: Context) -> AsyncIterator[Board]:
    """That of a simulated cluster."""
    yield FakeBoard()


BOARD: ComponentKey[Board] = ComponentKey("notes-board")
COMPONENT = Component(BOARD, open_board, roles=(Role.NODE,), fake=open_fake)
