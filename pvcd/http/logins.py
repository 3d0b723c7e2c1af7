"""Login sessions of users as records, so that every API server knows of each login and logout."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from typing import Annotated

from pydantic import StringConstraints

from pvcd.declare.context import Context
from pvcd.declare.handlers import Handlers, Requeue
from pvcd.errors import Changed
from pvcd.records import Record
from pvcd.store import Create, Delete, retried

MAX_PER_TOKEN = 1000
"""Beyond this many login sessions of one token the oldest end: a program may log in for each request."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
handlers = Handlers(scope="primary")


class Login(Record, path="/logins/{id}"):
    """A login session; neither its secret nor the token can be derived from it."""

    id: Digest
    """The SHA-256 of the secret."""
    fingerprint: Digest
    """That of the token with which it began."""
    created: float
    expires: float


@retried
async def begin(context: Context, fingerprint: str, instead_of: str | None = None) -> str:
    """Begin a login session for the token with this fingerprint, end the one it replaces; return its secret."""
    secret = secrets.token_urlsafe(32)
    now = context.clock.time()
    seconds = context.settings.api.authentication.session_seconds
    login = Login(id=_id(secret), fingerprint=fingerprint, created=now, expires=now + seconds)
    replaced = await context.store.read(Login, _id(instead_of)) if instead_of else None
    if replaced is None:
        replaced = _surplus(context, fingerprint)
    await context.store.write(Create(login), *([Delete(replaced)] if replaced else []))
    return secret


def _surplus(context: Context, fingerprint: str) -> Login | None:
    """Return the oldest login session of a token that has the most it may have, else None."""
    logins = [login for login in context.store.all(Login) if login.fingerprint == fingerprint]
    return min(logins, key=lambda login: login.created) if len(logins) >= MAX_PER_TOKEN else None


def find(context: Context, secret: str) -> Login | None:
    """Return the login session of a secret, from memory."""
    return _live(context, context.store.get(Login, _id(secret)))


async def look_up(context: Context, secret: str) -> Login | None:
    """Return the login session of a secret from ZooKeeper, for one that may have begun elsewhere just now."""
    return _live(context, await context.store.read(Login, _id(secret)))


def _live(context: Context, login: Login | None) -> Login | None:
    return login if login and login.expires > context.clock.time() else None


@retried
async def end(context: Context, secret: str) -> None:
    """End the login session of a secret, if there is one."""
    login = await context.store.read(Login, _id(secret))
    if login:
        await context.store.write(Delete(login))


@handlers.on(Login)
async def sweep(context: Context, login: Login) -> Requeue | None:
    """Remove a login session that has expired."""
    remaining = login.expires - context.clock.time()
    if remaining > 0:
        return Requeue(remaining)
    with contextlib.suppress(Changed):  # its user logged out meanwhile
        await context.store.write(Delete(login))
    return None


def _id(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
