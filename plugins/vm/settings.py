"""pvc.vm: how this node runs VMs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pvcd import Section, SettingsSection


class VMSettings(Section):
    """pvc.vm: how a node runs VMs"""

    uri: str = "qemu:///system"
    """The libvirt connection URI."""
    domain_types: Annotated[tuple[str, ...], Field(min_length=1)] = ("kvm", "qemu")
    """The domain types that VMs may have, out of those that libvirt offers; qemu is emulation."""
    console_directory: Path = Path("/var/log/libvirt/qemu")
    """The directory of the logs of serial consoles; virtlogd limits their size."""
    shutdown_seconds: Annotated[float, Field(gt=0, le=3600)] = 90.0
    """Seconds that a guest has to shut down before it is stopped."""


SECTION = SettingsSection("vm", VMSettings)
