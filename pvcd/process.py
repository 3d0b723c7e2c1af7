"""Process identity: tells one process from every other one, on every machine and after every reboot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict


class ProcessIdentity(BaseModel):
    """One process, told apart from every other one on every machine and after every reboot."""

    model_config = ConfigDict(frozen=True)

    boot: str
    namespace: int
    pid: int
    started: int

    @classmethod
    def current(cls) -> Self:
        """This process."""
        pid = os.getpid()
        return cls(boot=_boot(), namespace=_namespace(), pid=pid, started=_started(pid) or 0)

    def has_ended(self) -> bool:
        """Whether this process has certainly ended; False where it cannot be known from here."""
        here = self.boot == _boot() and self.namespace == _namespace()
        return here and _started(self.pid) != self.started


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _started(pid: int) -> int | None:
    """When a living process started, in ticks since boot; None for one that has ended or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
