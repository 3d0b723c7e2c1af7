"""Plays every scenario of this folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from .conftest import FOLDER, Scenario


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.txt")), ids=lambda file: file.stem)
def test_scenario(file: Path) -> None:
    asyncio.run(Scenario(file.read_text()).play())
