"""The fact `machine`: processors, memory, load and system of a node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pvcd import Context, NodeFact

MEMINFO = Path("/proc/meminfo")


async def machine(context: Context) -> dict[str, Any]:
    """Return logical CPUs, `uname -r`, `-o` and `-m`, the load average of one minute, and memory in MiB."""
    system = os.uname()
    memory = _meminfo(MEMINFO.read_text())  # noqa: ASYNC240 (procfs: never waits for a disk)
    return {
        "cpu_count": os.cpu_count() or 1,
        "kernel": system.release,
        "os": "GNU/Linux" if system.sysname == "Linux" else system.sysname,
        "arch": system.machine,
        "load": round(os.getloadavg()[0], 2),
        "memory_total": memory["MemTotal"],
        "memory_free": memory["MemFree"],
        "memory_used": memory["MemTotal"] - memory["MemAvailable"],
    }


def _meminfo(text: str) -> dict[str, int]:
    """Return /proc/meminfo in MiB."""
    lines = (line.split() for line in text.splitlines())
    return {fields[0].rstrip(":"): int(fields[1]) // 1024 for fields in lines}


MACHINE = NodeFact("machine", machine)
