"""pvc.notes: where a node shows its note"""

from __future__ import annotations

from pathlib import Path

from pvcd import Section, SettingsSection


class NotesSettings(Section):
    """pvc.notes: where a node shows its note"""

    file: Path = Path("/run/motd.d/pvcd-notes")
    """It is shown to whoever logs in at the node."""


SECTION = SettingsSection("notes", NotesSettings)
