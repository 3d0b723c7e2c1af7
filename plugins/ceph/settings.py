"""pvc.ceph: how nodes reach Ceph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pvcd import Name, Section, SettingsSection


class CephSettings(Section):
    """pvc.ceph: how nodes reach Ceph"""

    conf: Path = Path("/etc/ceph/ceph.conf")
    """Ceph's configuration file. A node without this file has no Ceph and refuses storage requests."""
    user: Name = "admin"
    """The Ceph user of the nodes: client.<user>, an administrator, whose keyring `conf` names."""
    libvirt_user: Name = "libvirt"
    """The Ceph user of guests: client.<libvirt_user>, with profile rbd; nodes give its key to libvirt."""
    refresh_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 15.0
    """Interval at which the primary reads the whole state of Ceph."""
    mapping_directory: Path = Path("/run/pvcd/mapping")
    """Directory in which task workers record the volumes that they have mapped."""
    lock_file: Path = Path("/run/pvcd/ceph.lock")
    """File in which the daemons of one machine lock the volumes that they change."""
    deadline: Annotated[float, Field(ge=1, le=600)] = 30.0
    """Seconds after which a request to Ceph has failed."""


SECTION = SettingsSection("ceph", CephSettings)
