"""pvc.notes: where a node shows its note"""

from __future__ import annotations

from pathlib import Path

from pvcd import Section, SettingsSection


class NotesSettings(Section):
    """pvc.notes: where a node shows its note"""

    file: Path = Path("/run/motd.d/pvcd-notes")
    """The file with the note; users see it when they log in to the node."""


SECTION = SettingsSection("notes", NotesSettings)
