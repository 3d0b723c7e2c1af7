"""pvc.vm: how this node runs VMs."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from pvcd import Section, SettingsSection
from pvcd_plugins.vm.grants import GRANTS
from pvcd_plugins.vm.policy import FILES, HostAccess

Grants = tuple[str | dict[str, tuple[str, ...]], ...]


def _known(grants: Grants) -> Grants:
    for grant in grants:
        if grant == FILES:
            raise ValueError("files must list directories, such as files: [/srv/images]")
        if isinstance(grant, dict):
            for directory in (each for listed in grant.values() for each in listed):
                if not directory.startswith("/") or directory != posixpath.normpath(directory):
                    raise ValueError(f"files must list absolute paths without '..'; got {directory!r:.60}")
        unknown = next((name for name in ([grant] if isinstance(grant, str) else grant) if name not in GRANTS), None)
        if unknown is not None or (isinstance(grant, dict) and set(grant) != {FILES}):
            raise ValueError(f"must list grants such as hostdev, vnc-open and files: [/srv/images]; got {grant!r:.60}")
    return grants


class VMSettings(Section):
    """pvc.vm: how a node runs VMs"""

    uri: str = "qemu:///system"
    """The libvirt connection URI."""
    domain_types: Annotated[tuple[str, ...], Field(min_length=1)] = ("kvm", "qemu")
    """The domain types that VMs may have, out of those that libvirt offers; qemu is emulation."""
    console_directory: Path = Path("/var/log/libvirt/qemu")
    """The directory of the logs of serial consoles; virtlogd limits their size."""
    state_directory: Path = Path("/var/lib/pvcd/vms")
    """The directory of what VMs remember on this node: UEFI variables, and whose TPM has state."""
    tpm_directory: Path = Path("/var/lib/libvirt/swtpm")
    """The directory in which this node's libvirt keeps the state of emulated TPMs."""
    shutdown_seconds: Annotated[float, Field(gt=0, le=3600)] = 90.0
    """Seconds that a guest has to shut down before it is stopped."""
    host_access: Annotated[Grants, AfterValidator(_known)] = ()
    """Grants: the parts of a node that the XML of VMs may reach, besides Ceph volumes and networks. The API applies
    them to new definitions, and each node at every start."""

    @property
    def access(self) -> HostAccess:
        """The grants of `host_access`, taken apart."""
        names = (name for grant in self.host_access for name in ([grant] if isinstance(grant, str) else grant))
        listed = (each for grant in self.host_access if isinstance(grant, dict) for each in grant.values())
        return HostAccess(frozenset(names), tuple(path for paths in listed for path in paths))


SECTION = SettingsSection("vm", VMSettings)
