"""pvc.metadata: what guests are told of themselves."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from pvcd import Section, SettingsSection


class MetadataSettings(Section):
    """pvc.metadata: how guests learn who they are"""

    enabled: bool = True
    """Whether the primary answers at 169.254.169.254. Switch it off on coordinators that are guests of a cloud
    themselves, and need that address."""
    require_token: bool = False
    """Whether only requests with a token (IMDSv2) are answered. NoCloud knows none, and has no answer then."""
    availability_zone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = "pvc"
    """The zone that all guests are told they are in; it should never change, whichever node they run on."""


SECTION = SettingsSection("metadata", MetadataSettings)
