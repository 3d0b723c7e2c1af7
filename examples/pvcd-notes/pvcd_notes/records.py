"""The records in the store."""

from __future__ import annotations

from uuid import UUID

from pvcd import Name, Record


class Note(Record, path="/notes-notes/{node}"):
    """A note for a node; only the API and tasks write it."""

    node: Name
    text: str
    hold: bool = False
    task: UUID | None = None


class NoteReport(Record, path="/notes-notes/{node}/report"):
    """The text that the node has read; only the node writes it."""

    node: Name
    read: str
