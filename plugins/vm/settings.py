"""pvc.vm: how this node runs VMs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pvcd import Section, SettingsSection


class VMSettings(Section):
    """pvc.vm: how a node runs VMs"""

    uri: str = "qemu:///system"
    """Where libvirt listens."""
    domain_types: Annotated[tuple[str, ...], Field(min_length=1)] = ("kvm", "qemu")
    """Which of the domain types that libvirt offers VMs may have; qemu is emulation."""
    console_directory: Path = Path("/var/log/libvirt/qemu")
    """Where the serial consoles of VMs are logged; virtlogd bounds their size."""
    shutdown_seconds: Annotated[float, Field(gt=0, le=3600)] = 90.0
    """Seconds that a guest may take to shut down before it is stopped."""


SECTION = SettingsSection("vm", VMSettings)
