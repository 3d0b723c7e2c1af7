"""pvc.provisioner and pvc.metadata: how VMs are built, and how guests learn who they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from pvcd import Section, SettingsSection


class ProvisionerSettings(Section):
    """pvc.provisioner: how VMs are built"""

    script_network: Literal["host", "none"] = "host"
    """The network of scripts: "host" is that of the task worker, so that they can download packages and reach all that
    the worker can; "none" is loopback alone."""
    script_files: tuple[Path, ...] = (Path("/srv/pvcd"),)
    """Files and directories of task workers that scripts may read, in addition to programs and libraries."""
    script_seconds: Annotated[float, Field(gt=0)] = 3600
    """Seconds that a script's install() may take; after that, the script is killed and the task fails."""


class MetadataSettings(Section):
    """pvc.metadata: the metadata API, from which guests read their metadata"""

    enabled: bool = True
    """Let the primary serve it at 169.254.169.254. Disable it on coordinators that are guests of a cloud themselves and
    need that address."""
    require_token: bool = False
    """Require a token with every request (IMDSv2). NoCloud sends none, and does not work then."""
    availability_zone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = "pvc"
    """The availability zone that all guests see; it must not change while they exist."""


SECTION = SettingsSection("provisioner", ProvisionerSettings)
METADATA_SECTION = SettingsSection("metadata", MetadataSettings)
