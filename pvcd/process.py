"""Process identity: tells one process from every other one, on every machine and after every reboot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

PROC = Path("/proc")


class ProcessIdentity(BaseModel):
    """One process, told apart from every other one on every machine and after every reboot."""

    model_config = ConfigDict(frozen=True)

    boot: str
    namespace: int
    pid: int
    started: int

    @classmethod
    def current(cls) -> Self:
        """Return the identity of this process."""
        pid = os.getpid()
        return cls(boot=_boot(), namespace=_namespace(), pid=pid, started=_started(pid) or 0)

    def has_ended(self) -> bool:
        """Return whether this process has certainly ended; False where that cannot be known from here."""
        here = self.boot == _boot() and self.namespace == _namespace()
        return here and _started(self.pid) != self.started


def _boot() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _started(pid: int) -> int | None:
    """Return when a living process started, in ticks since boot; None for one that has ended or is a zombie."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def stat_fields(pid: int, proc: Path = PROC) -> list[str]:
    """Return the fields of /proc/PID/stat after the program's name, the state first; [] if there is none."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
