"""pvc.ceph: how nodes reach Ceph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pvcd import Name, Section, SettingsSection


class CephSettings(Section):
    """pvc.ceph: how nodes reach Ceph"""

    conf: Path = Path("/etc/ceph/ceph.conf")
    """Ceph's own settings, which say where it is. A node without this file has no Ceph, and says so when asked."""
    user: Name = "admin"
    """Who nodes are to Ceph: client.<user>, an administrator, whose keyring `conf` finds."""
    libvirt_user: Name = "libvirt"
    """Who guests are to Ceph: client.<libvirt_user>, with profile rbd; nodes give its key to libvirt."""
    refresh: Annotated[float, Field(ge=0.5, le=3600)] = 15.0
    """Seconds from one look of the primary at all of Ceph to the next."""
    mapping_directory: Path = Path("/run/pvcd/mapping")
    """Where workers note which volumes they have mapped."""
    deadline: Annotated[float, Field(ge=1, le=600)] = 30.0
    """Seconds after which a request that Ceph does not answer has failed."""


SECTION = SettingsSection("ceph", CephSettings)
