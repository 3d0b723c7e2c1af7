"""pvc.keepalive: how often a node reports."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pvcd import Section, SettingsSection


class KeepaliveSettings(Section):
    """pvc.keepalive: how often a node reports"""

    interval: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds from one keepalive to the next."""


SECTION = SettingsSection("keepalive", KeepaliveSettings)
