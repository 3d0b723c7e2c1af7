"""The health of notes, for GET /api/v1/health."""

from __future__ import annotations

from pvcd import Context, Health, HealthCheck

from .records import Note
from .service import is_read


async def look(context: Context) -> Health:
    """Warn of nodes that have not read their notes."""
    unread = [note.node for note in context.store.all(Note) if not is_read(context, note)]
    if unread:
        return Health("warning", f"Unread notes of nodes: {', '.join(unread)}.")
    return Health("ok", "All notes are read.")


UNREAD = HealthCheck("skeleton", "The notes of nodes", look)
