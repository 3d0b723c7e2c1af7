"""A look at the notes, for GET /api/v1/health."""

from __future__ import annotations

from pvcd import Context, Health, HealthCheck

from .records import Note
from .service import is_read


async def look(context: Context) -> Health:
    """Which notes were not read yet."""
    unread = [note.node for note in context.store.all(Note) if not is_read(context, note)]
    if unread:
        return Health("warning", f"These nodes have not read their notes: {', '.join(unread)}.")
    return Health("ok", "All notes were read.")


UNREAD = HealthCheck("skeleton", "The notes of nodes", look)
