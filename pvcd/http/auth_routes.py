"""The general endpoints of the manual, which exist without any plugin."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

from pvcd.declare.context import Context
from pvcd.errors import Invalid
from pvcd.http.auth import VISITOR
from pvcd.http.parameters import Value
from pvcd.http.replies import Encoded, Message, Produces
from pvcd.http.routes import Routes

Token = Annotated[
    str | None, Value("One of the configured API tokens; only needed while authentication is enabled", secret=True)
]

GREETING = Message(message=f"PVC API, pvcd {version('pvcd')}")
DISABLED = Message(message="Authentication is disabled")
FORM = b"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>PVC API: log in</title>
<h1>PVC API</h1>
<form method="post" action="/api/v1/auth/login">
<p><label>Token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<p><button>Log in</button>
</form>
</html>
"""
FORM_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
}

routes = Routes("/api/v1", tag="General")


@routes.get(status=209, public=True)
async def describe(context: Context) -> Message:
    """Show that the API is listening, and its version."""
    return GREETING


@routes.get("/auth/login", public=True)
async def show_login_form(context: Context) -> Message | Encoded[Annotated[str, Produces("text/html")]]:
    """Show a form for browsers that takes a token and begins a login session."""
    return Encoded(FORM, "text/html", FORM_HEADERS) if _is_enabled(context) else DISABLED


@routes.post("/auth/login", public=True)
async def log_in(context: Context, token: Token = None) -> Message:
    """Begin a login session with a token: the reply sets a cookie. Browsers are redirected to the root of the API."""
    if not _is_enabled(context):
        return DISABLED
    if token is None:
        raise Invalid("The argument 'token' is missing.")
    await context[VISITOR].log_in(token)
    return Message(message="Logged in")


@routes.get("/auth/logout", public=True)
async def log_out(context: Context) -> Message:
    """End the login session: its cookie is valid nowhere any more, including copies of it."""
    if not _is_enabled(context):
        return DISABLED
    await context[VISITOR].log_out()
    return Message(message="Logged out")


@routes.post("/auth/logout", public=True)
async def log_out_by_post(context: Context) -> Message:
    """End the login session, as GET does."""
    return await log_out(context)


def _is_enabled(context: Context) -> bool:
    return context.settings.api.authentication.enabled
