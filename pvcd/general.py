"""The manual's chapter: general endpoints, which are there whatever the plugins are."""

from __future__ import annotations

from pvcd import __version__
from pvcd.context import Context
from pvcd.http.replies import Message
from pvcd.http.routes import Routes

routes = Routes("/api/v1", tag="General")


@routes.get(status=209)
async def describe(context: Context) -> Message:
    """Say that the API is listening, and its version."""
    return Message(message=f"PVC API, pvcd {__version__}")
