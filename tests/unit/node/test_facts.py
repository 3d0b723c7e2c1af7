"""The fact `machine`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pvcd_plugins.node import facts

MEMINFO = """MemTotal:        8039892 kB
MemFree:         2010112 kB
MemAvailable:    6291456 kB
Buffers:               0 kB
HugePages_Total:       4
Hugepagesize:       2048 kB
"""
CONTEXT: Any = None


async def test_memory_is_in_mib_and_available_memory_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "meminfo"
    file.write_text(MEMINFO)
    monkeypatch.setattr(facts, "MEMINFO", file)
    said = await facts.machine(CONTEXT)
    assert (said["memory_total"], said["memory_free"], said["memory_used"]) == (7851, 1963, 7851 - 6144)


async def test_the_system_is_named_as_uname_does() -> None:
    said = await facts.machine(CONTEXT)
    system = os.uname()
    assert (said["kernel"], said["arch"], said["os"]) == (system.release, system.machine, "GNU/Linux")
    assert said["cpu_count"] == os.cpu_count()
    assert said["load"] == pytest.approx(os.getloadavg()[0], abs=1)
