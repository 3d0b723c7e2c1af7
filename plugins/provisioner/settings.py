"""pvc.provisioner: how VMs are built."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pvcd import Section, SettingsSection


class ProvisionerSettings(Section):
    """pvc.provisioner: how VMs are built"""

    script_seconds: Annotated[float, Field(gt=0)] = 3600
    """Seconds that a script's install() may take; then it is ended, and so is the task."""


SECTION = SettingsSection("provisioner", ProvisionerSettings)
